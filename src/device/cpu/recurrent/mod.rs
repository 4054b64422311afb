//! CPU kernels of the recurrent family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

mod cell;
mod reference;

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-recurrent", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run }];
