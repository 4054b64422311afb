//! CPU kernels of the reduce family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};
use super::isa::Isa;

mod fold;
mod normalize;
mod reference;
#[cfg(test)]
mod tests;
mod vector;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-reduce", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    #[cfg(target_arch = "x86_64")]
    CpuKernel { name: "cpu-avx2-float-rows", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Avx2) },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-float-rows",
        pack: pack_nothing,
        scratch_bytes: no_scratch,
        run: |c| vector::run(c, Isa::Avx512),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel { name: "cpu-neon-float-rows", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Neon) },
    CpuKernel {
        name: "cpu-portable-int-rows",
        pack: pack_nothing,
        scratch_bytes: no_scratch,
        run: |c| vector::run(c, Isa::Portable),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel { name: "cpu-avx2-int-rows", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Avx2) },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-int-rows",
        pack: pack_nothing,
        scratch_bytes: no_scratch,
        run: |c| vector::run(c, Isa::Avx512),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel { name: "cpu-neon-int-rows", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Neon) },
];
