//! CPU kernels of the pool family.

mod window;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[CpuKernel] =
    &[CpuKernel { name: "cpu-any-pool", pack: pack_nothing, scratch_bytes: no_scratch, run: window::run }];
