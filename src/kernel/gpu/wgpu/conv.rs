//! Kernels of the conv family. f16 and bf16 are computed in f32.

use super::row::{row, row_20, row64, stores_in_32_bits, stores_in_64_bits};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::{ConvProblem, Family};
use crate::kernel::KernelDef;
use crate::kernel::gpu::conv;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-conv-direct", Family::Conv, direct, conv::direct_us),
    row64("wgpu-conv-direct64", Family::Conv, direct64, conv::direct_us),
    row_20("wgpu-conv-direct-int", Family::Conv, direct_int, conv::direct_us),
    row("wgpu-conv-depthwise", Family::Conv, depthwise, conv::depthwise_us),
    row_20("wgpu-conv-depthwise-int", Family::Conv, depthwise_int, conv::depthwise_us),
    row("wgpu-conv-128x128", Family::Conv, tiled, |p, info| conv::tiles_us(p, info, [128, 128, 8], 0.5 * info.peaks.f32_gflops)),
    row("wgpu-conv-64x64", Family::Conv, tiled, |p, info| conv::tiles_us(p, info, [64, 64, 8], 0.4 * info.peaks.f32_gflops)),
    row("wgpu-conv-32x128", Family::Conv, tiled, |p, info| conv::tiles_us(p, info, [32, 128, 8], 0.35 * info.peaks.f32_gflops)),
    row("wgpu-conv-64x64-split", Family::Conv, tiled, |p, info| {
        conv::split_us(p, info, [64, 64, 8], 0.4 * info.peaks.f32_gflops)
    }),
    row_20("wgpu-conv-int8-128x64", Family::Conv, int8, |p, info| {
        conv::tensor_us(p, info, [64, 128], 0.4 * info.peaks.int8_gops)
    }),
    row_20("wgpu-conv-int8-64x32", Family::Conv, int8, |p, info| conv::tensor_us(p, info, [32, 64], 0.2 * info.peaks.int8_gops)),
    row_20("wgpu-conv-int8-64x32-split", Family::Conv, int8, |p, info| {
        conv::tensor_split_us(p, info, 0.2 * info.peaks.int8_gops)
    }),
];

/// The type of sums.
fn value(p: &ConvProblem) -> DType {
    match p.x {
        _ if p.quant.is_some() => DType::I32,
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// What needs no 64-bit types.
fn narrow(problem: &Problem) -> Result<&ConvProblem, &'static str> {
    let p = conv::conv(problem)?;
    stores_in_32_bits(value(p), p.epilogue.as_ref(), p.y)?;
    Ok(p)
}

/// Of these, floats.
fn floats(problem: &Problem) -> Result<&ConvProblem, &'static str> {
    let p = narrow(problem)?;
    if p.quant.is_some() { Err("takes floats") } else { Ok(p) }
}

/// Integers have up to eleven operands besides an epilogue's.
fn integers(problem: &Problem) -> Result<&ConvProblem, &'static str> {
    let p = narrow(problem)?;
    if p.quant.is_none() { Err("takes integers") } else { Ok(p) }
}

fn direct(problem: &Problem) -> Result<(), &'static str> {
    floats(problem).map(drop)
}

fn direct_int(problem: &Problem) -> Result<(), &'static str> {
    integers(problem).map(drop)
}

/// What needs 64-bit types.
fn direct64(problem: &Problem) -> Result<(), &'static str> {
    let p = conv::conv(problem)?;
    stores_in_64_bits(value(p), p.epilogue.as_ref())?;
    if narrow(problem).is_err() { Ok(()) } else { Err("computed in 32 bits") }
}

fn depthwise(problem: &Problem) -> Result<(), &'static str> {
    floats(problem)?;
    conv::depthwise(problem)
}

fn depthwise_int(problem: &Problem) -> Result<(), &'static str> {
    integers(problem)?;
    conv::depthwise(problem)
}

fn int8(problem: &Problem) -> Result<(), &'static str> {
    integers(problem)?;
    conv::int8(problem)
}

fn tiled(problem: &Problem) -> Result<(), &'static str> {
    conv::tiled(floats(problem)?)
}
