//! Choices of elements on GPUs. The others' outputs are known when the planner is done: see docs/cuda-moves.md.

mod top_k;

use super::call::GpuKernel;
use crate::device::cpu::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[GpuKernel] =
    &[GpuKernel { name: "any-top-k", pack: pack_nothing, scratch_bytes: no_scratch, launches: top_k::launches }];
