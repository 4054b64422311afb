//! CUDA's rows of the kernel table, a file for each family.

pub(super) mod attend;
pub mod conv;
pub mod gemm;
pub mod hopper;
pub(super) mod movement;
pub(super) mod pool;
pub(super) mod recurrent;
pub(super) mod reduce;
mod row;
pub(super) mod scalar;
pub(super) mod select;
