//! Rows of shaders, a file for each family. They take what the CUDA kernels of the same arguments take; where 64-bit types are
//! computed with, a row of its own asks for an adapter that has them.

mod attend;
mod conv;
mod gemm;
mod movement;
mod pool;
mod recurrent;
mod reduce;
mod row;
mod scalar;
mod select;

use crate::kernel::KernelDef;

pub(in crate::kernel) static TABLES: &[&[KernelDef]] = &[
    scalar::KERNELS,
    attend::KERNELS,
    conv::KERNELS,
    gemm::KERNELS,
    movement::KERNELS,
    pool::KERNELS,
    recurrent::KERNELS,
    reduce::KERNELS,
    select::KERNELS,
];
