//! Kernels of the gemm family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
