//! CPU kernels of the conv family.
//!
//! [`dense`]: convolution in blocks of pixels on the matrix product's tiles, depthwise included. [`planes`]: how a block's input
//! is laid out. [`window`]: where pixels read from. [`few`]: few pixels. [`transposed`]: the adjoint. `reference`: everything.

mod dense;
mod few;
mod finish;
mod planes;
mod reference;
mod transposed;
mod window;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};
use super::gemm::core;

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-conv", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    CpuKernel {
        name: "cpu-portable-conv-4x16",
        pack: |p, c| dense::pack(&core::PORTABLE, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&core::PORTABLE, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx2-conv-6x16",
        pack: |p, c| dense::pack(&core::AVX2, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&core::AVX2, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-conv-14x32",
        pack: |p, c| dense::pack(&core::AVX512, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&core::AVX512, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-neon-conv-6x16",
        pack: |p, c| dense::pack(&super::gemm::arm::NEON, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&super::gemm::arm::NEON, c),
    },
];
