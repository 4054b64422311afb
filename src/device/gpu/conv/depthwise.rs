//! Convolutions of one input channel a group: kernels/conv_depthwise.ptx.j2.

use super::geometry::{Window3, bias_or_quant, finish, own_outputs, problem, w_half};
use crate::base::DType;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::device::gpu::call::{Call, GpuKernel};
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;

pub(in crate::device::gpu) static KERNELS: &[GpuKernel] =
    &[kernel("sm61-conv-depthwise"), kernel("conv-depthwise"), kernel("conv-depthwise-int")];

const fn kernel(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: no_scratch, launches }
}

fn launches(call: &Call) -> Result<Vec<Launch>> {
    let p = problem(call)?;
    if p.out_shape().numel() == 0 {
        return Ok(Vec::new());
    }
    let w = Window3::new(&p.window);
    let variant = Variant::named(match p.x {
        _ if p.quant.is_some() => "conv_depthwise_int",
        DType::F16 => "conv_depthwise_f16",
        DType::BF16 => "conv_depthwise_bf16",
        _ => "conv_depthwise_f32",
    });
    let blocks = w.output[1].div_ceil(variant.number("rows"));
    let all = (p.n * p.m) as u32 * blocks * w.output[2];
    let mut args = vec![Arg::Pointer(Pointer::Input(p.x_at, 0)), Arg::Pointer(Pointer::Input(p.w_at, 0))];
    args.extend([all, w_half(p)].map(Arg::U32));
    for axis in 1..3 {
        let [input, output, kernel, stride, dilation] = [w.input, w.output, w.kernel, w.strides, w.dilations].map(|v| v[axis]);
        args.extend([input, output, kernel, stride, dilation, w.pads[axis] as u32].map(Arg::U32));
    }
    for divisor in [w.output[2], blocks, p.m as u32, own_outputs(p) as u32] {
        let (magic, shift) = magic(divisor);
        args.extend([divisor, magic, shift].map(Arg::U32));
    }
    args.extend(bias_or_quant(call, p)?);
    Ok(vec![finish(call, p, Launch::new(variant, [all.div_ceil(variant.threads), 1, 1], args))?])
}
