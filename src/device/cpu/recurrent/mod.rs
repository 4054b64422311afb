//! CPU kernels of the recurrent family.

use super::CpuKernel;
#[cfg(target_arch = "aarch64")]
use super::gemm::arm;
use super::gemm::{bytes, core};
use super::isa::Isa;
use weights::{Tier, Tiles};

mod activation;
mod cell;
mod reference;
mod steps;
#[cfg(test)]
mod tests;
mod vector;
mod weights;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel::new("cpu-any-recurrent", &reference::run),
    CpuKernel::new("cpu-portable-float-recurrent", &Tier { isa: Isa::Portable, tiles: Tiles::Float(&core::PORTABLE) }),
    CpuKernel::new("cpu-portable-int8-recurrent", &Tier { isa: Isa::Portable, tiles: Tiles::Int8(&bytes::PORTABLE) }),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-float-recurrent", &Tier { isa: Isa::Avx2, tiles: Tiles::Float(&core::AVX2) }),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-float-recurrent", &Tier { isa: Isa::Avx512, tiles: Tiles::Float(&core::AVX512) }),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-int8-recurrent", &Tier { isa: Isa::Avx2, tiles: Tiles::Int8(&bytes::AVX2) }),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-int8-recurrent", &Tier { isa: Isa::Avx512, tiles: Tiles::Int8(&bytes::AVX512) }),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512vnni-int8-recurrent", &Tier { isa: Isa::Avx512, tiles: Tiles::Int8(&bytes::AVX512_VNNI) }),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-float-recurrent", &Tier { isa: Isa::Neon, tiles: Tiles::Float(&arm::NEON) }),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-int8-recurrent", &Tier { isa: Isa::Neon, tiles: Tiles::Int8(&arm::NEON_BYTES) }),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-dotprod-int8-recurrent", &Tier { isa: Isa::Neon, tiles: Tiles::Int8(&arm::DOTPROD) }),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-i8mm-int8-recurrent", &Tier { isa: Isa::Neon, tiles: Tiles::Int8(&arm::I8MM) }),
];
