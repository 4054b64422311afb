//! Kernels of the pool family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
