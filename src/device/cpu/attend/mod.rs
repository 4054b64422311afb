//! CPU kernels of the attend family.

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};
use super::isa::Isa;

mod head;
mod mask;
mod product;
mod reference;
mod rotary;
#[cfg(test)]
mod tests;
mod vector;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-attend", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    #[cfg(target_arch = "x86_64")]
    CpuKernel { name: "cpu-avx2-float-heads", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Avx2) },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-float-heads",
        pack: pack_nothing,
        scratch_bytes: no_scratch,
        run: |c| vector::run(c, Isa::Avx512),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel { name: "cpu-neon-float-heads", pack: pack_nothing, scratch_bytes: no_scratch, run: |c| vector::run(c, Isa::Neon) },
];
