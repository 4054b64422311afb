//! Kernels of the attend family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
