//! CPU kernels of the movement family.

mod copy;
mod gather;
mod interpolate;
mod run;
mod scatter;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-move", pack: pack_nothing, scratch_bytes: no_scratch, run: run::run }];
