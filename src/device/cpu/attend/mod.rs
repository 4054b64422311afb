//! CPU kernels of the attend family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
