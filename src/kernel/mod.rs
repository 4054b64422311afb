//! The kernel table and its only chooser.

pub mod attend;
pub mod choose;
pub mod conv;
mod cost;
pub mod def;
pub mod gemm;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub mod movement;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod scalar;
pub mod select;
pub mod tune;

pub use choose::{Candidate, Choice, NoKernel, candidates, choose, why_dense};
pub use def::{KernelDef, Proof};

static TABLES: &[&[KernelDef]] = &[
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

/// Every kernel of every device.
pub fn all() -> impl Iterator<Item = &'static KernelDef> {
    #[cfg(feature = "gpu")]
    let tables = TABLES.iter().chain(gpu::TABLES).chain(gpu::wgpu::TABLES);
    #[cfg(not(feature = "gpu"))]
    let tables = TABLES.iter();
    tables.copied().flatten()
}
