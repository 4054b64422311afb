//! CUDA's rows of the kernel table, a file for each family.

mod row;
pub(super) mod scalar;
