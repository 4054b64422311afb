//! The CPU device and its kernels.

pub mod call;
pub mod device;
pub mod evaluate;

mod attend;
mod conv;
mod disjoint;
mod exponent;
mod gemm;
mod isa;
mod movement;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod rows;
mod scalar;
mod select;
mod share;
mod widen;

pub use call::{Call, CpuCode, CpuKernel, Packed};
pub use device::CpuDevice;
pub use evaluate::evaluate;

static TABLES: &[&[CpuKernel]] = &[
    scalar::KERNELS,
    gemm::KERNELS,
    conv::KERNELS,
    pool::KERNELS,
    reduce::KERNELS,
    attend::KERNELS,
    movement::KERNELS,
    recurrent::KERNELS,
    select::KERNELS,
];

/// The code behind every CPU row of the kernel table.
pub fn kernels() -> impl Iterator<Item = &'static CpuKernel> {
    TABLES.iter().copied().flatten()
}
