//! Kernels of the conv family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
