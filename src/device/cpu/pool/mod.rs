//! CPU kernels of the pool family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
