//! CPU kernels of the conv family.
//!
//! [`dense`]: convolution in blocks of pixels on the matrix product's tiles, depthwise included; of [`floats`] and of [`bytes`].
//! [`planes`]: how a block's input is laid out. [`window`]: where pixels read from. [`few`]: few pixels. [`transposed`]: the
//! adjoint. `reference`: everything.

mod bytes;
mod dense;
mod few;
mod finish;
mod floats;
mod planes;
mod reference;
mod transposed;
mod window;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};
#[cfg(target_arch = "aarch64")]
use super::gemm::arm;
use super::gemm::{bytes as tiles, core};

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-conv", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    CpuKernel {
        name: "cpu-portable-conv-4x16",
        pack: |p, c| floats::pack(&core::PORTABLE, p, c),
        scratch_bytes: no_scratch,
        run: |c| floats::run(&core::PORTABLE, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx2-conv-6x16",
        pack: |p, c| floats::pack(&core::AVX2, p, c),
        scratch_bytes: no_scratch,
        run: |c| floats::run(&core::AVX2, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-conv-14x32",
        pack: |p, c| floats::pack(&core::AVX512, p, c),
        scratch_bytes: no_scratch,
        run: |c| floats::run(&core::AVX512, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-neon-conv-6x16",
        pack: |p, c| floats::pack(&arm::NEON, p, c),
        scratch_bytes: no_scratch,
        run: |c| floats::run(&arm::NEON, c),
    },
    CpuKernel {
        name: "cpu-portable-conv-int8-2x16",
        pack: |p, c| bytes::pack(&tiles::PORTABLE, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&tiles::PORTABLE, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx2-conv-int8-6x16",
        pack: |p, c| bytes::pack(&tiles::AVX2, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&tiles::AVX2, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-conv-int8-12x32",
        pack: |p, c| bytes::pack(&tiles::AVX512, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&tiles::AVX512, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512vnni-conv-int8-14x32",
        pack: |p, c| bytes::pack(&tiles::AVX512_VNNI, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&tiles::AVX512_VNNI, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avxvnni-conv-int8-6x16",
        pack: |p, c| bytes::pack(&tiles::AVX_VNNI, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&tiles::AVX_VNNI, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-neon-conv-int8-6x16",
        pack: |p, c| bytes::pack(&arm::NEON_BYTES, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&arm::NEON_BYTES, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-dotprod-conv-int8-6x16",
        pack: |p, c| bytes::pack(&arm::DOTPROD, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&arm::DOTPROD, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-i8mm-conv-int8-6x16",
        pack: |p, c| bytes::pack(&arm::I8MM, p, c),
        scratch_bytes: no_scratch,
        run: |c| bytes::run(&arm::I8MM, c),
    },
    CpuKernel {
        name: "cpu-portable-few-4x16",
        pack: |p, c| few::pack(&core::PORTABLE, p, c),
        scratch_bytes: no_scratch,
        run: |c| few::run(&core::PORTABLE, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx2-few-6x16",
        pack: |p, c| few::pack(&core::AVX2, p, c),
        scratch_bytes: no_scratch,
        run: |c| few::run(&core::AVX2, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-few-14x32",
        pack: |p, c| few::pack(&core::AVX512, p, c),
        scratch_bytes: no_scratch,
        run: |c| few::run(&core::AVX512, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-neon-few-6x16",
        pack: |p, c| few::pack(&super::gemm::arm::NEON, p, c),
        scratch_bytes: no_scratch,
        run: |c| few::run(&super::gemm::arm::NEON, c),
    },
];
