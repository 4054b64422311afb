//! CPU kernels of the recurrent family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};
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

/// What the kernels compute with: those of every processor, then those of the target.
static TIERS: &[Tier] = &[
    Tier { isa: Isa::Portable, tiles: Tiles::Float(&core::PORTABLE) },
    Tier { isa: Isa::Portable, tiles: Tiles::Int8(&bytes::PORTABLE) },
    #[cfg(target_arch = "x86_64")]
    Tier { isa: Isa::Avx2, tiles: Tiles::Float(&core::AVX2) },
    #[cfg(target_arch = "x86_64")]
    Tier { isa: Isa::Avx512, tiles: Tiles::Float(&core::AVX512) },
    #[cfg(target_arch = "x86_64")]
    Tier { isa: Isa::Avx2, tiles: Tiles::Int8(&bytes::AVX2) },
    #[cfg(target_arch = "x86_64")]
    Tier { isa: Isa::Avx512, tiles: Tiles::Int8(&bytes::AVX512) },
    #[cfg(target_arch = "x86_64")]
    Tier { isa: Isa::Avx512, tiles: Tiles::Int8(&bytes::AVX512_VNNI) },
    #[cfg(target_arch = "aarch64")]
    Tier { isa: Isa::Neon, tiles: Tiles::Float(&arm::NEON) },
    #[cfg(target_arch = "aarch64")]
    Tier { isa: Isa::Neon, tiles: Tiles::Int8(&arm::NEON_BYTES) },
    #[cfg(target_arch = "aarch64")]
    Tier { isa: Isa::Neon, tiles: Tiles::Int8(&arm::DOTPROD) },
    #[cfg(target_arch = "aarch64")]
    Tier { isa: Isa::Neon, tiles: Tiles::Int8(&arm::I8MM) },
];

/// The kernel of a tier.
const fn row<const TIER: usize>(name: &'static str) -> CpuKernel {
    CpuKernel {
        name,
        pack: |p, c| vector::pack(&TIERS[TIER], p, c),
        scratch_bytes: |p, _| vector::scratch_bytes(p),
        run: |call| vector::run(&TIERS[TIER], call),
    }
}

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-recurrent", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    row::<0>("cpu-portable-float-recurrent"),
    row::<1>("cpu-portable-int8-recurrent"),
    #[cfg(target_arch = "x86_64")]
    row::<2>("cpu-avx2-float-recurrent"),
    #[cfg(target_arch = "x86_64")]
    row::<3>("cpu-avx512-float-recurrent"),
    #[cfg(target_arch = "x86_64")]
    row::<4>("cpu-avx2-int8-recurrent"),
    #[cfg(target_arch = "x86_64")]
    row::<5>("cpu-avx512-int8-recurrent"),
    #[cfg(target_arch = "x86_64")]
    row::<6>("cpu-avx512vnni-int8-recurrent"),
    #[cfg(target_arch = "aarch64")]
    row::<2>("cpu-neon-float-recurrent"),
    #[cfg(target_arch = "aarch64")]
    row::<3>("cpu-neon-int8-recurrent"),
    #[cfg(target_arch = "aarch64")]
    row::<4>("cpu-dotprod-int8-recurrent"),
    #[cfg(target_arch = "aarch64")]
    row::<5>("cpu-i8mm-int8-recurrent"),
];
