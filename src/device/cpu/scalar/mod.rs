//! CPU kernels of the scalar family.

pub mod broadcast;
mod elementwise;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-scalar", pack: pack_nothing, scratch_bytes: no_scratch, run: elementwise::run }];
