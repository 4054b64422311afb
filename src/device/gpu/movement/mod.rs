//! Movements of elements on GPUs: docs/cuda-moves.md says which kernel does what.

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

pub(super) static KERNELS: &[GpuKernel] = &[kernel("any-move"), kernel("any-move64")];

const fn kernel(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: |problem, _| run::scratch_bytes(problem), launches: run::launches }
}
