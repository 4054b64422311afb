//! CPU kernels of the attend family.

use super::CpuKernel;
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
    CpuKernel::new("cpu-any-attend", &reference::run),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-float-heads", &vector::On(Isa::Avx2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-float-heads", &vector::On(Isa::Avx512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-float-heads", &vector::On(Isa::Neon)),
];
