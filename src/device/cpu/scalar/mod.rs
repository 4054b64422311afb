//! CPU kernels of the scalar family.

pub mod broadcast;
mod elementwise;

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[CpuKernel::new("cpu-any-scalar", &elementwise::run)];
