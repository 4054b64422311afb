//! CPU kernels of the reduce family.

use super::CpuKernel;
use super::isa::Isa;

mod fold;
mod normalize;
mod reference;
#[cfg(test)]
mod tests;
mod vector;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel::new("cpu-any-reduce", &reference::run),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-float-rows", &vector::On(Isa::Avx2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-float-rows", &vector::On(Isa::Avx512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-float-rows", &vector::On(Isa::Neon)),
    CpuKernel::new("cpu-portable-int-rows", &vector::On(Isa::Portable)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-int-rows", &vector::On(Isa::Avx2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-int-rows", &vector::On(Isa::Avx512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-int-rows", &vector::On(Isa::Neon)),
];
