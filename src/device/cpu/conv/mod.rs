//! CPU kernels of the conv family.
//!
//! [`dense`]: convolution in blocks of pixels on the matrix product's tiles, depthwise included; of [`floats`] and of [`bytes`].
//! [`planes`]: how a block's input is laid out. [`window`]: where pixels read from. [`few`]: few pixels. [`transposed`]: the
//! adjoint. [`operands`]: what these take of floats. `reference`: everything.

mod bytes;
mod dense;
mod few;
mod finish;
mod floats;
mod operands;
mod planes;
mod reference;
mod transposed;
mod units;
mod window;

#[cfg(test)]
mod tests;

use super::CpuKernel;
#[cfg(target_arch = "x86_64")]
use super::gemm::amx;
#[cfg(target_arch = "aarch64")]
use super::gemm::arm;
use super::gemm::{bytes as tiles, core};

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel::new("cpu-any-conv", &reference::run),
    CpuKernel::new("cpu-portable-conv-4x16", &floats::On(&core::PORTABLE)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-conv-6x16", &floats::On(&core::AVX2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-conv-14x32", &floats::On(&core::AVX512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-conv-6x16", &floats::On(&arm::NEON)),
    CpuKernel::new("cpu-portable-conv-int8-2x16", &bytes::On(&tiles::PORTABLE)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-conv-int8-6x16", &bytes::On(&tiles::AVX2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-conv-int8-12x32", &bytes::On(&tiles::AVX512)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512vnni-conv-int8-14x32", &bytes::On(&tiles::AVX512_VNNI)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avxvnni-conv-int8-6x16", &bytes::On(&tiles::AVX_VNNI)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-amx-conv-int8-32x32", &bytes::On(&amx::AMX)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-conv-int8-6x16", &bytes::On(&arm::NEON_BYTES)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-dotprod-conv-int8-6x16", &bytes::On(&arm::DOTPROD)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-i8mm-conv-int8-6x16", &bytes::On(&arm::I8MM)),
    CpuKernel::new("cpu-portable-few-4x16", &few::On(&core::PORTABLE)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx2-few-6x16", &few::On(&core::AVX2)),
    #[cfg(target_arch = "x86_64")]
    CpuKernel::new("cpu-avx512-few-14x32", &few::On(&core::AVX512)),
    #[cfg(target_arch = "aarch64")]
    CpuKernel::new("cpu-neon-few-6x16", &few::On(&arm::NEON)),
];
