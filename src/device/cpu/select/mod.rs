//! CPU kernels of the select family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
