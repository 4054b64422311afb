//! Kernels of the scalar family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
