//! CPU kernels of the gemm family.

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[];
