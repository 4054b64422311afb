//! Kernels of the movement family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
