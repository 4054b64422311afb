//! The GPUs' rows of the kernel table, a file for each family: CUDA's, and in `wgpu` those of shaders.

mod attend;
pub mod conv;
pub mod gemm;
pub mod hopper;
mod movement;
pub mod picked;
mod pool;
mod recurrent;
mod reduce;
mod row;
mod scalar;
mod select;
pub mod sparse;
pub(super) mod wgpu;

use super::KernelDef;

pub(super) static TABLES: &[&[KernelDef]] = &[
    scalar::KERNELS,
    gemm::KERNELS,
    hopper::KERNELS,
    sparse::KERNELS,
    picked::KERNELS,
    conv::KERNELS,
    pool::KERNELS,
    reduce::KERNELS,
    attend::KERNELS,
    movement::KERNELS,
    recurrent::KERNELS,
    select::KERNELS,
];
