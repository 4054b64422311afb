//! CPU kernels of the scalar family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
