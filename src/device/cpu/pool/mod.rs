//! CPU kernels of the pool family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};
use super::isa::Isa;

mod geometry;
mod reference;
#[cfg(test)]
mod tests;
mod vector;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-pool", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    #[cfg(target_arch = "x86_64")]
    CpuKernel { name: "cpu-avx2-pool", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Avx2) },
    #[cfg(target_arch = "x86_64")]
    CpuKernel { name: "cpu-avx512-pool", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Avx512) },
    #[cfg(target_arch = "aarch64")]
    CpuKernel { name: "cpu-neon-pool", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Neon) },
];
