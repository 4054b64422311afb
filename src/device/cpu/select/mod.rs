//! CPU kernels of the select family.

mod choose;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-select", pack: pack_nothing, scratch_bytes: no_scratch, run: choose::run }];
