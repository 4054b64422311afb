//! CPU kernels of the gemm family.
//!
//! The core, for other families (convolutions, recurrent gates), works on slices:
//! - [`core::Isa`] names the instruction set, one static for each;
//! - [`core::pack_b`] lays a strided B out in panels, [`core::packed_len`] says how many elements that takes;
//! - [`core::product`] computes `A x B` for one matrix: A strided or given row by row by a closure (so that im2col never needs
//!   a whole buffer), and hands each finished row segment, still in cache, to a closure that scales, adds and stores it.
//!
//! [`bytes`] has the same three for exact 8-bit products.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "aarch64")]
pub mod arm;
pub mod blocks;
pub mod bytes;
pub mod core;
mod finish;
mod int8;
pub mod interleave;
pub mod lines;
mod parts;
mod real;
mod reference;
pub mod simd;
mod stack;
mod stored;
pub mod tile;
mod top;

#[cfg(test)]
mod tests;

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel::new("cpu-any-gemm-reference", &reference::run),
    CpuKernel::new("cpu-portable-float-4x16", &real::On(&core::PORTABLE)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-float-6x16", &real::On(&core::AVX2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-float-14x32", &real::On(&core::AVX512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-float-6x16", &real::On(&arm::NEON)),
    CpuKernel::new("cpu-portable-int8-2x16", &int8::On(&bytes::PORTABLE)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-int8-6x16", &int8::On(&bytes::AVX2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-int8-12x32", &int8::On(&bytes::AVX512)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512vnni-int8-14x32", &int8::On(&bytes::AVX512_VNNI)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avxvnni-int8-6x16", &int8::On(&bytes::AVX_VNNI)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-amx-int8-32x32", &int8::On(&amx::AMX)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-int8-6x16", &int8::On(&arm::NEON_BYTES)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-dotprod-int8-6x16", &int8::On(&arm::DOTPROD)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-i8mm-int8-6x16", &int8::On(&arm::I8MM)),
];
