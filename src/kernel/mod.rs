//! The kernel table and its only chooser.

pub mod attend;
pub mod choose;
pub mod conv;
mod cost;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod def;
pub mod gemm;
pub mod movement;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod scalar;
pub mod select;

pub use choose::{Candidate, Choice, NoKernel, candidates, choose};
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
    #[cfg(feature = "cuda")]
    cuda::gemm::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::hopper::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::scalar::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::conv::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::movement::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::pool::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::select::KERNELS,
    cuda::reduce::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::attend::KERNELS,
    #[cfg(feature = "cuda")]
    cuda::recurrent::KERNELS,
];

/// Every kernel of every device.
pub fn all() -> impl Iterator<Item = &'static KernelDef> {
    TABLES.iter().copied().flatten()
}
