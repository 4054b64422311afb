//! CPU kernels of the pool family.

use super::CpuKernel;
use super::isa::Isa;

mod geometry;
mod reference;
#[cfg(test)]
mod tests;
mod vector;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel::new("cpu-any-pool", &reference::run),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-pool", &vector::On(Isa::Avx2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-pool", &vector::On(Isa::Avx512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-pool", &vector::On(Isa::Neon)),
];
