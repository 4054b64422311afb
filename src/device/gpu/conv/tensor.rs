//! Implicit matrix products of pixels by output channels on tensor cores: kernels/conv_mma.ptx.j2, after kernels/conv_nhwc.ptx.j2 has
//! laid out the image; with packed products of bytes, shaders/conv_dot.wgsl.j2 takes the same. Weights that are not constant are not
//! packed: those run as [`super::direct`].

use std::borrow::Cow;

use half::f16;

use super::direct;
use super::geometry::{Window3, bias_or_quant, finish, flip, grid, own_channels, own_outputs, problem};
use super::split;
use crate::base::{DType, Tensor};
use crate::device::cpu::Packed;
use crate::device::cpu::call::Packing;
use crate::device::gpu::call::{Call, GpuKernel};
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;
use crate::hardware::DeviceInfo;

/// Bytes of a piece, the unit of copies.
const PIECE: usize = 16;
/// Pieces of a step of K.
const STEP: usize = 4;

const fn kernel(name: &'static str, launches: fn(&Call) -> Result<Vec<Launch>>) -> GpuKernel {
    GpuKernel { name, pack, scratch_bytes, launches }
}

const fn split_kernel(name: &'static str, launches: fn(&Call) -> Result<Vec<Launch>>) -> GpuKernel {
    GpuKernel { scratch_bytes: split_scratch_bytes, ..kernel(name, launches) }
}

pub(in crate::device::gpu) static KERNELS: &[GpuKernel] = &[
    kernel("sm80-conv-f16-128x128", |c| launches(c, "128x128")),
    kernel("sm80-conv-f16-128x64", |c| launches(c, "128x64")),
    kernel("sm80-conv-f16-64x32", |c| launches(c, "64x32")),
    split_kernel("sm80-conv-f16-64x32-split", |c| launches(c, "64x32_split")),
    kernel("sm80-conv-int8-128x128", |c| launches(c, "128x128")),
    kernel("sm80-conv-int8-128x64", |c| launches(c, "128x64")),
    kernel("sm80-conv-int8-64x32", |c| launches(c, "64x32")),
    split_kernel("sm80-conv-int8-64x32-split", |c| launches(c, "64x32_split")),
    kernel("sm75-conv-int8-128x128", |c| launches(c, "128x128_sm75")),
    kernel("sm75-conv-int8-128x64", |c| launches(c, "128x64_sm75")),
    kernel("sm75-conv-int8-64x32", |c| launches(c, "64x32_sm75")),
    split_kernel("sm75-conv-int8-64x32-split", |c| launches(c, "64x32_split_sm75")),
    kernel("conv-int8-128x64", |c| launches(c, "128x64_dot")),
    kernel("conv-int8-64x32", |c| launches(c, "64x32_dot")),
    split_kernel("conv-int8-64x32-split", |c| launches(c, "64x32_split_dot")),
];

/// How channels lie in pieces.
struct Pieces {
    /// Bytes of an element.
    bytes: usize,
    /// Pieces of a group's input channels.
    own: usize,
    /// Steps of K.
    steps: usize,
}

impl Pieces {
    fn new(p: &ConvProblem) -> Pieces {
        let bytes = if p.quant.is_some() { 1 } else { 2 };
        let own = own_channels(p).div_ceil(PIECE / bytes);
        Pieces { bytes, own, steps: (own * p.window.taps()).div_ceil(STEP) }
    }
}

/// Output extents grown to what their windows reach: the image with its padding.
fn padded(w: &Window3) -> [u32; 3] {
    std::array::from_fn(|i| (w.output[i] - 1) * w.strides[i] + (w.kernel[i] - 1) * w.dilations[i] + 1)
}

/// Of the image in pieces, with its padding.
fn image_bytes(p: &ConvProblem) -> usize {
    if p.out_shape().numel() == 0 {
        return 0;
    }
    let pixels = padded(&Window3::new(&p.window)).map(|v| v as usize).iter().product::<usize>();
    p.n * pixels * p.groups * Pieces::new(p).own * PIECE
}

fn scratch_bytes(problem: &Problem, _: &DeviceInfo) -> usize {
    if let Problem::Conv(p) = problem { image_bytes(p) } else { 0 }
}

fn split_scratch_bytes(problem: &Problem, info: &DeviceInfo) -> usize {
    let Problem::Conv(p) = problem else { return 0 };
    image_bytes(p) + split::scratch_bytes(p, info.cores, grid(p, 64, 32), Pieces::new(p).steps)
}

/// Weights `[m][tap][channel]` in whole pieces, rows in whole steps, and of bytes the sums of rows: both signed.
fn pack(problem: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
    let Problem::Conv(p) = problem else { return Ok(None) };
    let Some(Some(w)) = constants.get(p.w_at) else { return Ok(None) };
    let (pieces, channels, taps) = (Pieces::new(p), own_channels(p), p.window.taps());
    let flip = signed_flip(p.w) as u8;
    let elements: Cow<[u8]> = match p.w {
        DType::F32 => w.values::<f32>()?.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        _ => w.bytes().iter().map(|b| b ^ flip).collect(),
    };
    let row = pieces.steps * STEP * PIECE;
    let mut packed = vec![0u8; p.m * row];
    for (m, to) in packed.chunks_exact_mut(row.max(1)).enumerate() {
        for (c, tap) in (0..channels).flat_map(|c| (0..taps).map(move |tap| (c, tap))) {
            let from = ((m * channels + c) * taps + tap) * pieces.bytes;
            let at = tap * pieces.own * PIECE + c * pieces.bytes;
            to[at..at + pieces.bytes].copy_from_slice(&elements[from..from + pieces.bytes]);
        }
    }
    let sum = |row: &[u8]| row.iter().map(|&b| i32::from(b as i8)).sum::<i32>();
    let sums: Vec<i32> = if p.quant.is_some() { packed.chunks_exact(row.max(1)).map(sum).collect() } else { Vec::new() };
    Ok(Some((Packed { parts: vec![Tensor::vector(&packed), Tensor::vector(&sums)] }, vec![p.w_at])))
}

/// The bit that makes bytes of a type signed in order.
fn signed_flip(dtype: DType) -> u32 {
    if dtype == DType::U8 { 0x80 } else { 0 }
}

fn launches(call: &Call, tile: &str) -> Result<Vec<Launch>> {
    let p = problem(call)?;
    if call.packed.is_none() || p.out_shape().numel() == 0 {
        return direct::launches(call);
    }
    let (image, product) = (image(p), product(call, p, tile)?);
    if product.module.variant.number("split") == 0 {
        return Ok(vec![image, finish(call, p, product)?]);
    }
    let [product, sum] = split::launches(call, p, product, Pieces::new(p).steps, image_bytes(p))?;
    Ok(vec![image, product, sum])
}

/// The image to scratch.
fn image(p: &ConvProblem) -> Launch {
    let (w, pieces) = (Window3::new(&p.window), Pieces::new(p));
    let variant = Variant::named(match p.x {
        _ if p.quant.is_some() => "conv_nhwc_b8",
        DType::F32 => "conv_nhwc_f32",
        _ => "conv_nhwc_b16",
    });
    let padded = padded(&w);
    let (all, in_pixel) = (p.n as u32 * padded.iter().product::<u32>(), (p.groups * pieces.own) as u32);
    let x_zero = p.quant.as_ref().and_then(|q| q.x_zero).map_or(Pointer::Null, |i| Pointer::Input(i, 0));
    let mut args = [Pointer::Input(p.x_at, 0), Pointer::Scratch(0), x_zero].map(Arg::Pointer).to_vec();
    let (divisor, shift) = magic(pieces.own as u32);
    let channels = [p.c as u32, own_channels(p) as u32];
    args.extend([signed_flip(p.x), all, in_pixel, pieces.own as u32, divisor, shift].into_iter().chain(channels).map(Arg::U32));
    for (axis, &size) in padded.iter().enumerate() {
        let (divisor, shift) = magic(size);
        args.extend([size, divisor, shift, w.input[axis], w.pads[axis] as u32].map(Arg::U32));
    }
    Launch::new(variant, [all.div_ceil(variant.threads / 2), in_pixel.div_ceil(2), 1], args)
}

/// The product, without what stores it.
fn product(call: &Call, p: &ConvProblem, tile: &str) -> Result<Launch> {
    let (w, pieces) = (Window3::new(&p.window), Pieces::new(p));
    let types = match p.x {
        _ if p.quant.is_some() => "int8",
        DType::F32 => "half",
        DType::BF16 => "bf16",
        _ => "f16",
    };
    let variant = Variant::named(&format!("conv_mma_{types}_{tile}"));
    let mut args = vec![Arg::Pointer(Pointer::Scratch(0)), Arg::Pointer(Pointer::Packed(0, 0))];
    let mut rest = bias_or_quant(call, p)?;
    if p.quant.is_some() {
        let terms = own_channels(p) * p.window.taps();
        args.extend([Arg::Pointer(Pointer::Packed(1, 0)), Arg::U32(terms as u32)]);
        let flips = rest.len() - 3;
        rest.splice(flips.., [signed_flip(p.x), signed_flip(p.w), flip(p.y)].map(Arg::U32));
    }
    args.extend(rest);
    let (pixels, own) = (p.window.pixels(), pieces.own);
    args.extend([p.n * pixels, pixels, p.m, own_outputs(p), own].map(|v| Arg::U32(v as u32)));
    let padded = padded(&w);
    let line = (p.groups * own) as u32;
    let steps = [padded[1] * padded[2] * line, padded[2] * line, line];
    args.extend([STEP / own, STEP % own, pieces.steps].map(|v| Arg::U32(v as u32)));
    args.push(Arg::U32(padded[0] * steps[0]));
    for (axis, step) in steps.into_iter().enumerate() {
        let (divisor, shift) = magic(w.output[axis]);
        let moved = [w.strides[axis] * step, w.dilations[axis] * step, w.kernel[axis]];
        args.extend([w.output[axis], divisor, shift].into_iter().chain(moved).map(Arg::U32));
    }
    Ok(Launch::new(variant, grid(p, variant.number("bm"), variant.number("bn")), args))
}
