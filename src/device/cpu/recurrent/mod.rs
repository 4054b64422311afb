//! CPU kernels of the recurrent family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
