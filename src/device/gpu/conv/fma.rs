//! Implicit matrix products of output channels by pixels, with f32 arithmetic: kernels/conv_fma.ptx.j2, and of f16 and bf16 shaders/conv_fma.wgsl.j2
//! alone. Weights are read as they are.

use super::geometry::{Window3, bias_or_quant, finish, grid, own_channels, own_outputs, problem, w_half};
use super::split;
use crate::base::DType;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::device::gpu::call::{Call, GpuKernel};
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;
use crate::hardware::DeviceInfo;

const fn kernel(name: &'static str, launches: fn(&Call) -> Result<Vec<Launch>>) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: no_scratch, launches }
}

pub(in crate::device::gpu) static KERNELS: &[GpuKernel] = &[
    kernel("sm61-conv-f32-128x128", |c| launches(c, "128x128")),
    kernel("sm61-conv-f32-64x64", |c| launches(c, "64x64")),
    kernel("sm61-conv-f32-32x128", |c| launches(c, "32x128")),
    split("sm61-conv-f32-64x64-split"),
    kernel("conv-128x128", |c| launches(c, "128x128")),
    kernel("conv-64x64", |c| launches(c, "64x64")),
    kernel("conv-32x128", |c| launches(c, "32x128")),
    split("conv-64x64-split"),
];

const fn split(name: &'static str) -> GpuKernel {
    GpuKernel { scratch_bytes: split_scratch_bytes, ..kernel(name, |c| launches(c, "64x64_split")) }
}

fn launches(call: &Call, tile: &str) -> Result<Vec<Launch>> {
    let p = problem(call)?;
    if p.out_shape().numel() == 0 {
        return Ok(Vec::new());
    }
    let element = match p.x {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "f32",
    };
    let (w, variant) = (Window3::new(&p.window), Variant::named(&format!("conv_fma_{element}_{tile}")));
    let (pixels, own) = (p.window.pixels(), own_outputs(p));
    let mut args = vec![Arg::Pointer(Pointer::Input(p.x_at, 0)), Arg::Pointer(Pointer::Input(p.w_at, 0))];
    args.extend(bias_or_quant(call, p)?);
    args.extend([p.c, own_channels(p), p.m, own].map(|v| Arg::U32(v as u32)));
    args.extend([w_half(p), (p.n * pixels) as u32, w.input[1], w.input[2]].map(Arg::U32));
    for axis in 1..3 {
        args.extend([w.kernel[axis], w.strides[axis], w.dilations[axis], w.pads[axis] as u32].map(Arg::U32));
    }
    let taps = w.kernel[1] * w.kernel[2];
    args.extend([8 / taps, 8 % taps / w.kernel[2], 8 % w.kernel[2]].map(Arg::U32));
    for divisor in [pixels as u32, w.output[2]] {
        let (magic, shift) = magic(divisor);
        args.extend([divisor, magic, shift].map(Arg::U32));
    }
    let launch = Launch::new(variant, grid(p, variant.number("bn"), variant.number("bm")), args);
    match variant.number("split") {
        0 => Ok(vec![finish(call, p, launch)?]),
        _ => Ok(split::launches(call, p, launch, steps(p), 0)?.to_vec()),
    }
}

/// Steps of K, of 8 terms.
fn steps(p: &ConvProblem) -> usize {
    (own_channels(p) * p.window.taps()).div_ceil(8)
}

fn split_scratch_bytes(problem: &Problem, info: &DeviceInfo) -> usize {
    let Problem::Conv(p) = problem else { return 0 };
    split::scratch_bytes(p, info.cores, grid(p, 64, 64), steps(p))
}
