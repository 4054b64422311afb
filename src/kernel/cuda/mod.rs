//! CUDA's rows of the kernel table, a file for each family.

pub(super) mod conv;
pub mod gemm;
mod row;
pub(super) mod scalar;
