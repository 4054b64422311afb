//! CPU kernels of the gemm family.
//!
//! The core, for other families (convolutions, recurrent gates), works on slices:
//! - [`core::Isa`] names the instruction set, one static for each;
//! - [`core::pack_b`] lays a strided B out in panels, [`core::packed_len`] says how many elements that takes;
//! - [`core::product`] computes `A x B` for one matrix: A strided or given row by row by a closure (so that im2col never needs
//!   a whole buffer), and hands each finished row segment, still in cache, to a closure that scales, adds and stores it.
//!
//! [`bytes`] has the same three for exact 8-bit products.

#[cfg(target_arch = "aarch64")]
pub mod arm;
pub mod blocks;
pub mod bytes;
pub mod core;
mod finish;
mod int8;
mod interleave;
mod real;
mod reference;
mod simd;
pub mod tile;

#[cfg(test)]
mod tests;

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[
    reference::KERNEL,
    real::PORTABLE,
    #[cfg(target_arch = "x86_64")]
    real::AVX2,
    #[cfg(target_arch = "x86_64")]
    real::AVX512,
    int8::PORTABLE,
    #[cfg(target_arch = "x86_64")]
    int8::AVX2,
    #[cfg(target_arch = "x86_64")]
    int8::AVX512,
    #[cfg(target_arch = "x86_64")]
    int8::AVX512_VNNI,
    #[cfg(target_arch = "x86_64")]
    int8::AVX_VNNI,
    #[cfg(target_arch = "aarch64")]
    real::NEON,
    #[cfg(target_arch = "aarch64")]
    int8::NEON,
    #[cfg(target_arch = "aarch64")]
    int8::DOTPROD,
    #[cfg(target_arch = "aarch64")]
    int8::I8MM,
];
