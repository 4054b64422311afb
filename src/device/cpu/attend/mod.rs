//! CPU kernels of the attend family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

mod mask;
mod reference;

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-attend", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run }];
