//! Kernels of the reduce family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
