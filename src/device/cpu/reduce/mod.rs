//! CPU kernels of the reduce family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

mod fold;
mod normalize;
mod reference;

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-reduce", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run }];
