//! Movements of elements on CUDA: docs/cuda-moves.md says which kernel does what.

mod copy;
mod index;
mod interpolate;
mod mapped;
mod run;
mod scatter;
mod structured;
pub(super) mod walk;

use super::call::GpuKernel;
use crate::device::cpu::call::pack_nothing;

pub(super) static KERNELS: &[GpuKernel] = &[GpuKernel {
    name: "any-move",
    pack: pack_nothing,
    scratch_bytes: |problem, _| run::scratch_bytes(problem),
    launches: run::launches,
}];
