//! CPU kernels of the select family.

mod choose;

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[CpuKernel::new("cpu-any-select", &choose::run)];
