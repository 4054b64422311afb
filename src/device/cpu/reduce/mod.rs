//! CPU kernels of the reduce family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
