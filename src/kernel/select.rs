//! Kernels of the select family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
