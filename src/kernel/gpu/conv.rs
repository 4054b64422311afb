//! Kernels of the conv family.

use super::row::{ELEMENTS, launch_us, row};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::{ConvProblem, Family};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

/// Microseconds of a step of K at least.
const STEP_US: f64 = 0.3;

const fn sm80(
    name: &'static str,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    row(name, Family::Conv, Capabilities::SM_80, accepts, cost_us)
}

const fn sm75(name: &'static str, cost_us: fn(&Problem, &DeviceInfo) -> f64) -> KernelDef {
    row(name, Family::Conv, Capabilities::SM_75, int8, cost_us)
}

const fn sm61(
    name: &'static str,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    row(name, Family::Conv, Capabilities::SM_61, accepts, cost_us)
}

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    sm61("cuda-sm61-conv-direct", direct, direct_us),
    sm61("cuda-sm61-conv-depthwise", depthwise, depthwise_us),
    sm61("cuda-sm61-conv-f32-128x128", fma, |p, info| tiles_us(p, info, [128, 128, 8], 0.75 * info.peaks.f32_gflops)),
    sm61("cuda-sm61-conv-f32-64x64", fma, |p, info| tiles_us(p, info, [64, 64, 8], 0.6 * info.peaks.f32_gflops)),
    sm61("cuda-sm61-conv-f32-32x128", fma, |p, info| tiles_us(p, info, [32, 128, 8], 0.5 * info.peaks.f32_gflops)),
    sm61("cuda-sm61-conv-f32-64x64-split", fma, |p, info| split_us(p, info, [64, 64, 8], 0.6 * info.peaks.f32_gflops)),
    sm80("cuda-sm80-conv-f16-128x128", half, |p, info| tensor_us(p, info, [128, 128], 0.5 * info.peaks.f16_gflops)),
    sm80("cuda-sm80-conv-f16-128x64", half, |p, info| tensor_us(p, info, [64, 128], 0.4 * info.peaks.f16_gflops)),
    sm80("cuda-sm80-conv-f16-64x32", half, |p, info| tensor_us(p, info, [32, 64], 0.2 * info.peaks.f16_gflops)),
    sm80("cuda-sm80-conv-f16-64x32-split", half, |p, info| tensor_split_us(p, info, 0.2 * info.peaks.f16_gflops)),
    sm80("cuda-sm80-conv-int8-128x128", int8, |p, info| tensor_us(p, info, [128, 128], 0.5 * info.peaks.int8_gops)),
    sm80("cuda-sm80-conv-int8-128x64", int8, |p, info| tensor_us(p, info, [64, 128], 0.4 * info.peaks.int8_gops)),
    sm80("cuda-sm80-conv-int8-64x32", int8, |p, info| tensor_us(p, info, [32, 64], 0.2 * info.peaks.int8_gops)),
    sm80("cuda-sm80-conv-int8-64x32-split", int8, |p, info| tensor_split_us(p, info, 0.2 * info.peaks.int8_gops)),
    sm75("cuda-sm75-conv-int8-128x128", |p, info| tensor_us(p, info, [128, 128], 0.4 * info.peaks.int8_gops)),
    sm75("cuda-sm75-conv-int8-128x64", |p, info| tensor_us(p, info, [64, 128], 0.3 * info.peaks.int8_gops)),
    sm75("cuda-sm75-conv-int8-64x32", |p, info| tensor_us(p, info, [32, 64], 0.15 * info.peaks.int8_gops)),
    sm75("cuda-sm75-conv-int8-64x32-split", |p, info| tensor_split_us(p, info, 0.15 * info.peaks.int8_gops)),
];

/// What all of them take: three axes at most, sizes that 32 bits index, types that there are kernels for.
pub(super) fn conv(problem: &Problem) -> Result<&ConvProblem, &'static str> {
    let Problem::Conv(p) = problem else { return Err("another family") };
    if !(1..=3).contains(&p.window.rank()) {
        return Err("takes one to three spatial axes");
    }
    let weights = p.m * p.c / p.groups.max(1) * p.window.taps();
    if p.out_shape().numel().max(p.n * p.c * p.window.plane()).max(weights) > ELEMENTS {
        return Err("at most 2^31 - 1 elements");
    }
    let byte = |d: DType| matches!(d, DType::U8 | DType::I8);
    let integers = byte(p.x) && byte(p.w) && (byte(p.y) || p.y == DType::I32) && !p.transposed;
    let floats = p.x.is_float() && p.x == p.w && p.x == p.y;
    match p.epilogue.as_ref().map_or(0, |e| e.operands.len()) {
        9.. => Err("at most 8 operands of an epilogue"),
        _ if p.quant.is_some() && !integers => Err("takes 8-bit integers that are not transposed"),
        _ if p.quant.is_none() && !floats => Err("takes floats of one type"),
        _ => Ok(p),
    }
}

pub(super) fn direct(problem: &Problem) -> Result<(), &'static str> {
    conv(problem).map(drop)
}

/// One input channel a group.
pub(super) fn depthwise(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    match () {
        _ if p.x == DType::F64 => Err("takes no f64"),
        _ if p.transposed || p.window.rank() > 2 => Err("takes one or two spatial axes, not transposed"),
        _ if p.c != p.groups => Err("takes one input channel a group"),
        _ => Ok(()),
    }
}

/// f32, one or two axes, not transposed.
fn fma(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    if p.x == DType::F32 { tiled(p) } else { Err("takes f32") }
}

/// What tiles of channels by pixels take.
pub(super) fn tiled(p: &ConvProblem) -> Result<(), &'static str> {
    match () {
        _ if p.transposed || p.window.rank() > 2 => Err("takes one or two spatial axes, not transposed"),
        _ if p.groups > 65_535 => Err("takes at most 65535 groups"),
        _ => Ok(()),
    }
}

/// Bytes of the operands and of the result.
fn bytes(p: &ConvProblem) -> f64 {
    let image = (p.n * p.c * p.window.plane() * p.x.size_bytes()) as f64;
    let weights = (p.m * p.c / p.groups.max(1) * p.window.taps() * p.w.size_bytes()) as f64;
    image + weights + (p.out_shape().numel() * p.y.size_bytes()) as f64
}

/// By memory, or by five loads of the L1 for four products: a fifth of the f32 roof.
pub(super) fn depthwise_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    launch_us(info, bytes(p), 0.7, p.flops() / (0.2 * info.peaks.f32_gflops.max(1.0)) / 1e3)
}

/// At a twentieth of the f32 roof: two loads a multiplication.
pub(super) fn direct_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    let gflops = info.peaks.f32_gflops.max(1.0) * if p.x == DType::F64 { 0.0125 } else { 0.05 };
    launch_us(info, bytes(p), 0.8, p.flops() / gflops / 1e3)
}

/// f16, bf16, or f32 with weights of f16.
fn half(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    match (p.quant.is_none(), p.w_as) {
        (true, DType::F16 | DType::BF16) => tensor(p),
        _ => Err("takes f16 and bf16, or weights of f16"),
    }
}

pub(super) fn int8(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    if p.quant.is_some() { tensor(p) } else { Err("takes 8-bit integers") }
}

/// What tensor cores take: the table of taps holds 508, and pieces of 16 bytes are indexed by 32 bits.
fn tensor(p: &ConvProblem) -> Result<(), &'static str> {
    match () {
        _ if p.transposed => Err("takes no transposed convolution"),
        _ if p.c == 0 || p.window.taps() > 508 => Err("takes 1 to 508 taps"),
        _ if p.groups > 65_535 || line(p) > 100_000 => Err("takes at most 65535 groups and 100000 pieces of 16 bytes a pixel"),
        _ if p.n * padded(p) * line(p) > ELEMENTS => Err("at most 2^31 - 1 pieces of 16 bytes"),
        _ => Ok(()),
    }
}

/// Pieces of 16 bytes of a pixel: each group's channels in whole ones.
fn line(p: &ConvProblem) -> usize {
    let each = if p.quant.is_some() { 16 } else { 8 };
    p.groups * (p.c / p.groups.max(1)).div_ceil(each)
}

/// Pixels of an image with its padding.
fn padded(p: &ConvProblem) -> usize {
    let w = &p.window;
    let reach = |i: usize| w.output[i].saturating_sub(1) * w.strides[i] + (w.kernel[i] - 1) * w.dilations[i] + 1;
    (0..w.rank()).map(reach).product()
}

/// How many parts K of so many steps is split in, and the steps of each: enough for two blocks a multiprocessor, of eight steps at
/// least.
pub(crate) fn parts(cores: usize, tiles: usize, steps: usize) -> [usize; 2] {
    let wanted = (2 * cores).div_ceil(tiles.max(1)).min(steps.div_ceil(8)).max(1);
    let each = steps.div_ceil(wanted).max(1);
    [steps.div_ceil(each).max(1), each]
}

/// Steps of K as kernels take it, and the terms that each of them computes.
type Steps = [usize; 2];

fn steps_of_terms(p: &ConvProblem, terms: usize) -> Steps {
    [(p.c / p.groups.max(1) * p.window.taps()).div_ceil(terms), terms]
}

/// Of four pieces of 16 bytes.
fn steps_of_pieces(p: &ConvProblem) -> Steps {
    let each = if p.quant.is_some() { 64 } else { 32 };
    [(line(p) / p.groups.max(1) * p.window.taps()).div_ceil(4), each]
}

/// Tiles of output channels x pixels, and so many terms at once.
pub(super) fn tiles_us(problem: &Problem, info: &DeviceInfo, [channels, pixels, terms]: [usize; 3], gflops: f64) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    launch_us(info, bytes(p), 0.8, tiled_us(p, info, [channels, pixels], steps_of_terms(p, terms), false, gflops))
}

/// The same by parts of K.
pub(super) fn split_us(problem: &Problem, info: &DeviceInfo, [channels, pixels, terms]: [usize; 3], gflops: f64) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    let steps = steps_of_terms(p, terms);
    let product = tiled_us(p, info, [channels, pixels], steps, true, gflops);
    launch_us(info, bytes(p), 0.8, product) + reduce_us(p, info, [channels, pixels], steps)
}

/// With the image's copy in pieces: another launch, which writes what the product reads.
pub(super) fn tensor_us(problem: &Problem, info: &DeviceInfo, tile: [usize; 2], gflops: f64) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    let copied = (p.n * padded(p) * line(p) * 16) as f64;
    let product = tiled_us(p, info, tile, steps_of_pieces(p), false, gflops);
    launch_us(info, bytes(p) + copied, 0.8, 0.0) + launch_us(info, copied, 0.8, product)
}

pub(super) fn tensor_split_us(problem: &Problem, info: &DeviceInfo, gflops: f64) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    let (copied, steps) = ((p.n * padded(p) * line(p) * 16) as f64, steps_of_pieces(p));
    let product = tiled_us(p, info, [32, 64], steps, true, gflops);
    launch_us(info, bytes(p) + copied, 0.8, 0.0) + launch_us(info, copied, 0.8, product) + reduce_us(p, info, [32, 64], steps)
}

/// Tiles of output channels x pixels.
fn tiles(p: &ConvProblem, [channels, pixels]: [usize; 2]) -> usize {
    let groups = p.groups.max(1);
    (p.n * p.window.pixels()).div_ceil(pixels) * (p.m / groups).div_ceil(channels) * groups
}

/// Adding up the parts' sums.
fn reduce_us(p: &ConvProblem, info: &DeviceInfo, tile: [usize; 2], [steps, _]: Steps) -> f64 {
    let [count, _] = parts(info.cores, tiles(p, tile), steps);
    launch_us(info, (p.out_shape().numel() * 4 * (count + 1)) as f64, 0.8, 0.0)
}

/// Microseconds of whole tiles, as many one after the other as the fullest multiprocessor has, at a rate that all together reach;
/// a step of a block that is alone on its multiprocessor takes what its loads and barriers take.
fn tiled_us(p: &ConvProblem, info: &DeviceInfo, tile: [usize; 2], [steps, terms]: Steps, split: bool, gflops: f64) -> f64 {
    let (cores, tiles) = (info.cores.max(1), tiles(p, tile));
    let [count, each] = if split { parts(cores, tiles, steps) } else { [1, steps] };
    let waves = (tiles * count).div_ceil(cores);
    let flops = 2.0 * (waves * cores * tile[0] * tile[1] * each * terms) as f64;
    (flops / gflops.max(1.0) / 1e3).max(each as f64 * STEP_US)
}
