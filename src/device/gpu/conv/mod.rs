//! CUDA kernels of the conv family: docs/cuda-conv.md.
//!
//! [`geometry`]: windows of three axes, and arguments that all share. [`direct`]: everything, one thread an element. [`fma`]: implicit
//! matrix products with f32 arithmetic. [`tensor`]: with tensor cores. [`depthwise`]: one input
//! channel a group. [`split`]: K in parts.

pub(super) mod depthwise;
pub(super) mod direct;
pub(super) mod fma;
mod geometry;
mod split;
pub(super) mod tensor;
