//! CPU kernels of the movement family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
