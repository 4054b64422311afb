//! One thread an element of the output: any window of up to three axes, any groups, transposed too.

use super::geometry::{Window3, bias_or_quant, finish, own_channels, own_outputs, problem, w_half};
use crate::base::DType;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::device::gpu::call::{Call, GpuKernel};
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::ConvProblem;

pub(in crate::device::gpu) static KERNELS: &[GpuKernel] =
    &[kernel("sm61-conv-direct"), kernel("conv-direct"), kernel("conv-direct-int"), kernel("conv-direct64")];

const fn kernel(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: no_scratch, launches }
}

fn variant(p: &ConvProblem) -> &'static Variant {
    Variant::named(match p.x {
        _ if p.quant.is_some() => "conv_direct_int",
        DType::F16 => "conv_direct_f16",
        DType::BF16 => "conv_direct_bf16",
        DType::F64 => "conv_direct_f64",
        _ => "conv_direct_f32",
    })
}

/// The launch of any problem of the family.
pub(super) fn launches(call: &Call) -> Result<Vec<Launch>> {
    let p = problem(call)?;
    let elements = p.out_shape().numel();
    if elements == 0 {
        return Ok(Vec::new());
    }
    let (w, variant) = (Window3::new(&p.window), variant(p));
    let mut args = vec![Arg::Pointer(Pointer::Input(p.x_at, 0)), Arg::Pointer(Pointer::Input(p.w_at, 0))];
    let sizes = [elements, p.c, own_channels(p), own_outputs(p)].map(|v| v as u32);
    args.extend(sizes.into_iter().chain([p.transposed.into(), w_half(p)]).map(Arg::U32));
    for axis in 0..3 {
        let (divisor, shift) = magic(w.strides[axis]);
        let (stride, dilation) = (w.strides[axis], w.dilations[axis]);
        args.extend([w.input[axis], w.kernel[axis], stride, divisor, shift, dilation, w.pads[axis] as u32].map(Arg::U32));
    }
    for divisor in [w.output[2], w.output[1], w.output[0], p.m as u32, own_outputs(p) as u32] {
        let (magic, shift) = magic(divisor);
        args.extend([divisor, magic, shift].map(Arg::U32));
    }
    args.extend(bias_or_quant(call, p)?);
    let blocks = elements.div_ceil(variant.threads as usize) as u32;
    Ok(vec![finish(call, p, Launch::new(variant, [blocks, 1, 1], args))?])
}
