//! Matrix products. What the tiers share, in the order of a call:
//!
//! - [`operand`]: each operand as rows of K elements side by side that start at multiples of 16 bytes and are filled up with zeros
//!   (B is `[N, K]`). Operands that lie so are read where they are; others are arranged into scratch by a launch of their own.
//! - [`pack`]: a constant B in that form, made on the host.
//! - [`int8`]: 8-bit operands, dynamic quantisation, and the [`int8::Terms`] that take exact sums of bytes to results.
//! - [`batch`]: which matrices belong together.
//! - [`epilogue`]: alpha, beta, C, requantisation and the problem's epilogue as one formula for the kernel's slot.
//! - [`tile`]: the tiled kernels' launches, in parts where the grid would not fill the device; [`real`]: those that read operands as
//!   they lie; [`gemv`]: those of few rows; [`picked`]: those of stacks; [`hopper`]: those of sm_90a; [`any`]: what is left.
//! - [`sparse`]: weights of which two in every four are zero.
//! - [`top`]: the same in stripes of columns, where the largest results of each row alone are wanted.
//!
//! docs/cuda-gemm.md has the whole.

mod any;
pub mod batch;
pub mod epilogue;
mod gemv;
pub mod hopper;
pub mod int8;
pub mod operand;
pub mod pack;
mod picked;
pub mod real;
mod sparse;
pub mod tile;
mod top;

use super::call::GpuKernel;
use crate::kernel::gpu::gemm::{
    COOP8_64X64, COOP8_NARROW_64X64, COOP16_64X64, COOP16_128X128, F32_64X64, F32_128X64, SIMT_64X64, SIMT_128X64, SM75_64X64,
    SM75_128X64, SM75_128X128, SM80_16X128, SM80_64X64, SM80_128X128, WGSL_F32_32X32, WGSL_F32_64X64, WGSL_F32_128X64,
    WGSL_INT8_32X32, WGSL_INT8_64X64, WGSL_INT8_128X64,
};
use crate::kernel::gpu::sparse::{SPARSE_16X128, SPARSE_64X64, SPARSE_128X128, SPARSE_256X128, SPARSE_WIDE_128X128};
use sparse::wide_launches;
use tile::{kernel, launches, scratch_bytes};

pub(super) static KERNELS: &[GpuKernel] = &[
    any::kernel("any-gemm"),
    any::kernel("any-gemm64"),
    kernel("float-gemv", gemv::scratch_bytes, gemv::launches),
    kernel("int8-gemv", gemv::scratch_bytes, gemv::launches),
    picked::kernel("float-picked"),
    picked::kernel("sm61-float-picked"),
    real::kernel(
        "tile-float-128x64",
        |p, i| real::scratch_bytes(&WGSL_F32_128X64, p, i),
        |c| real::launches(&WGSL_F32_128X64, c),
    ),
    real::kernel("tile-float-64x64", |p, i| real::scratch_bytes(&WGSL_F32_64X64, p, i), |c| real::launches(&WGSL_F32_64X64, c)),
    real::kernel("tile-float-32x32", |p, i| real::scratch_bytes(&WGSL_F32_32X32, p, i), |c| real::launches(&WGSL_F32_32X32, c)),
    real::kernel("coop16-f16-128x128", |p, i| real::scratch_bytes(&COOP16_128X128, p, i), |c| real::launches(&COOP16_128X128, c)),
    real::kernel("coop16-f16-64x64", |p, i| real::scratch_bytes(&COOP16_64X64, p, i), |c| real::launches(&COOP16_64X64, c)),
    real::kernel("coop8-f16-64x64", |p, i| real::scratch_bytes(&COOP8_64X64, p, i), |c| real::launches(&COOP8_64X64, c)),
    real::kernel(
        "coop8-narrow-f16-64x64",
        |p, i| real::scratch_bytes(&COOP8_NARROW_64X64, p, i),
        |c| real::launches(&COOP8_NARROW_64X64, c),
    ),
    kernel("tile-int8-128x64", |p, i| scratch_bytes(&WGSL_INT8_128X64, p, i), |c| launches(&WGSL_INT8_128X64, c)),
    kernel("tile-int8-64x64", |p, i| scratch_bytes(&WGSL_INT8_64X64, p, i), |c| launches(&WGSL_INT8_64X64, c)),
    kernel("tile-int8-32x32", |p, i| scratch_bytes(&WGSL_INT8_32X32, p, i), |c| launches(&WGSL_INT8_32X32, c)),
    kernel("sm61-float-gemv", gemv::scratch_bytes, gemv::launches),
    kernel("sm61-int8-gemv", gemv::scratch_bytes, gemv::launches),
    real::kernel("sm61-float-128x64", |p, i| real::scratch_bytes(&F32_128X64, p, i), |c| real::launches(&F32_128X64, c)),
    real::kernel("sm61-float-64x64", |p, i| real::scratch_bytes(&F32_64X64, p, i), |c| real::launches(&F32_64X64, c)),
    kernel("sm61-int8-128x64", |p, i| scratch_bytes(&SIMT_128X64, p, i), |c| launches(&SIMT_128X64, c)),
    kernel("sm61-int8-64x64", |p, i| scratch_bytes(&SIMT_64X64, p, i), |c| launches(&SIMT_64X64, c)),
    kernel("sm75-f16-128x128", |p, i| scratch_bytes(&SM75_128X128, p, i), |c| launches(&SM75_128X128, c)),
    kernel("sm75-f16-64x64", |p, i| scratch_bytes(&SM75_64X64, p, i), |c| launches(&SM75_64X64, c)),
    kernel("sm75-int8-128x64", |p, i| scratch_bytes(&SM75_128X64, p, i), |c| launches(&SM75_128X64, c)),
    kernel("sm75-int8-64x64", |p, i| scratch_bytes(&SM75_64X64, p, i), |c| launches(&SM75_64X64, c)),
    kernel("sm80-half-128x128", |p, i| scratch_bytes(&SM80_128X128, p, i), |c| launches(&SM80_128X128, c)),
    kernel("sm80-half-64x64", |p, i| scratch_bytes(&SM80_64X64, p, i), |c| launches(&SM80_64X64, c)),
    kernel("sm80-half-16x128", |p, i| scratch_bytes(&SM80_16X128, p, i), |c| launches(&SM80_16X128, c)),
    kernel("sm80-int8-128x128", |p, i| scratch_bytes(&SM80_128X128, p, i), |c| launches(&SM80_128X128, c)),
    kernel("sm80-int8-64x64", |p, i| scratch_bytes(&SM80_64X64, p, i), |c| launches(&SM80_64X64, c)),
    kernel("sm80-int8-16x128", |p, i| scratch_bytes(&SM80_16X128, p, i), |c| launches(&SM80_16X128, c)),
    sparse::kernel("sm80-sparse-half-128x128", |p, i| scratch_bytes(&SPARSE_128X128, p, i), |c| launches(&SPARSE_128X128, c)),
    sparse::kernel("sm80-sparse-half-64x64", |p, i| scratch_bytes(&SPARSE_64X64, p, i), |c| launches(&SPARSE_64X64, c)),
    sparse::kernel("sm80-sparse-half-16x128", |p, i| scratch_bytes(&SPARSE_16X128, p, i), |c| launches(&SPARSE_16X128, c)),
    sparse::kernel("sm80-sparse-int8-128x128", |p, i| scratch_bytes(&SPARSE_128X128, p, i), |c| launches(&SPARSE_128X128, c)),
    sparse::kernel("sm80-sparse-int8-64x64", |p, i| scratch_bytes(&SPARSE_64X64, p, i), |c| launches(&SPARSE_64X64, c)),
    sparse::kernel("sm80-sparse-int8-16x128", |p, i| scratch_bytes(&SPARSE_16X128, p, i), |c| launches(&SPARSE_16X128, c)),
    sparse::kernel("sm90-sparse-half-256x128", hopper::scratch_bytes, |c| wide_launches(&SPARSE_256X128, c)),
    sparse::kernel("sm90-sparse-half-128x128", hopper::scratch_bytes, |c| wide_launches(&SPARSE_WIDE_128X128, c)),
    sparse::kernel("sm90-sparse-int8-256x128", hopper::scratch_bytes, |c| wide_launches(&SPARSE_256X128, c)),
    sparse::kernel("sm90-sparse-int8-128x128", hopper::scratch_bytes, |c| wide_launches(&SPARSE_WIDE_128X128, c)),
];
