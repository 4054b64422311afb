//! CPU kernels of the conv family.
//!
//! [`tile`]: register tiles for each instruction set. [`window`]: where pixels read from. [`dense`]: implicit GEMM, weights
//! packed as rows of tiles, pixels packed a panel at a time. [`depthwise`]: one channel at a time. `reference`: everything.

mod dense;
mod depthwise;
mod finish;
mod reference;
mod tile;
mod transposed;
mod window;

use super::CpuKernel;
use super::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[CpuKernel] = &[
    CpuKernel { name: "cpu-any-conv", pack: pack_nothing, scratch_bytes: no_scratch, run: reference::run },
    CpuKernel {
        name: "cpu-portable-conv",
        pack: |p, c| dense::pack(&tile::PORTABLE, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&tile::PORTABLE, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx2-conv-6x16",
        pack: |p, c| dense::pack(&tile::AVX2, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&tile::AVX2, c),
    },
    #[cfg(target_arch = "x86_64")]
    CpuKernel {
        name: "cpu-avx512-conv-12x32",
        pack: |p, c| dense::pack(&tile::AVX512, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&tile::AVX512, c),
    },
    #[cfg(target_arch = "aarch64")]
    CpuKernel {
        name: "cpu-neon-conv-6x16",
        pack: |p, c| dense::pack(&tile::NEON, p, c),
        scratch_bytes: no_scratch,
        run: |c| dense::run(&tile::NEON, c),
    },
    CpuKernel { name: "cpu-simd-depthwise", pack: pack_nothing, scratch_bytes: no_scratch, run: depthwise::run },
];
