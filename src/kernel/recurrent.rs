//! Kernels of the recurrent family.

use super::KernelDef;

pub(super) static KERNELS: &[KernelDef] = &[];
