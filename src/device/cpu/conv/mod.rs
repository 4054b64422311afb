//! CPU kernels of the conv family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
