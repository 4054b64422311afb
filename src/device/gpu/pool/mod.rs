//! Pooling on CUDA.

mod run;

use super::call::GpuKernel;
use crate::device::cpu::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[GpuKernel] = &[
    GpuKernel { name: "f32-pool", pack: pack_nothing, scratch_bytes: no_scratch, launches: |c| run::windows(c, false) },
    GpuKernel { name: "any-pool", pack: pack_nothing, scratch_bytes: no_scratch, launches: |c| run::windows(c, true) },
    GpuKernel { name: "whole-pool", pack: pack_nothing, scratch_bytes: no_scratch, launches: run::planes },
];
