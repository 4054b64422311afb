//! Windows as kernels take them, and the arguments that convolutions share.

use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::{ConvProblem, Window};

/// A window of three axes: those that it lacks come first, with size 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window3 {
    pub input: [u32; 3],
    pub output: [u32; 3],
    pub kernel: [u32; 3],
    pub strides: [u32; 3],
    pub dilations: [u32; 3],
    pub pads: [i32; 3],
}

impl Window3 {
    /// Of one to three axes.
    pub fn new(w: &Window) -> Window3 {
        let missing = 3 - w.rank();
        let sizes = |v: &[usize]| std::array::from_fn(|i| if i < missing { 1 } else { v[i - missing] as u32 });
        let pads = std::array::from_fn(|i| if i < missing { 0 } else { w.pads[i - missing] as i32 });
        Window3 {
            input: sizes(&w.input),
            output: sizes(&w.output),
            kernel: sizes(&w.kernel),
            strides: sizes(&w.strides),
            dilations: sizes(&w.dilations),
            pads,
        }
    }
}

/// The problem of a call.
pub(super) fn problem<'a>(call: &Call<'a>) -> Result<&'a ConvProblem> {
    match call.problem {
        Problem::Conv(p) => Ok(p),
        _ => Err(failed("the problem is of another family")),
    }
}

/// Output channels of a group.
pub(super) fn own_outputs(p: &ConvProblem) -> usize {
    p.m / p.groups.max(1)
}

/// Input channels of a group.
pub(super) fn own_channels(p: &ConvProblem) -> usize {
    p.c / p.groups.max(1)
}

/// Tiles of pixels (of all images) and of a group's output channels, and groups.
pub(super) fn grid(p: &ConvProblem, pixels: u32, channels: u32) -> [u32; 3] {
    let tiles = |n: usize, side: u32| n.div_ceil(side as usize) as u32;
    [tiles(p.n * p.window.pixels(), pixels), tiles(own_outputs(p), channels), p.groups as u32]
}

/// The type that sums are in when they reach a slot.
pub(super) fn value(p: &ConvProblem) -> DType {
    match p.y {
        _ if p.quant.is_some() => DType::I32,
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// Whether a kernel that computes in f32 has to round weights to f16.
pub(super) fn w_half(p: &ConvProblem) -> u32 {
    (p.w_as != p.w && p.w_as == DType::F16).into()
}

/// Where an input lies that may be left out.
fn optional(i: Option<usize>) -> Arg {
    Arg::Pointer(i.map_or(Pointer::Null, |i| Pointer::Input(i, 0)))
}

/// The bit that makes bytes of a type unsigned in order.
pub(super) fn flip(dtype: DType) -> u32 {
    if dtype == DType::I8 { 0x80 } else { 0 }
}

/// What comes after sums: the bias of floats, or everything that kernels/lib/conv.j2 lists for integers.
pub(super) fn bias_or_quant(call: &Call, p: &ConvProblem) -> Result<Vec<Arg>> {
    let Some(q) = &p.quant else {
        let fits = p.b_at.map(|b| call.input(b)).transpose()?.is_none_or(|b| b.dtype == p.x);
        return if fits { Ok(vec![optional(p.b_at)]) } else { Err(failed("a bias of another type than the image")) };
    };
    let step = |i: Option<usize>| -> Result<u32> {
        Ok(i.map(|i| call.input(i)).transpose()?.is_some_and(|t| t.shape.numel() > 1).into())
    };
    let r = q.requantize.as_ref();
    let scales = [r.map(|r| r.x_scale), r.map(|r| r.w_scale), r.map(|r| r.y_scale)];
    for i in scales.into_iter().flatten() {
        if call.input(i)?.dtype != DType::F32 {
            return Err(failed("a scale that is not f32"));
        }
    }
    let mut args: Vec<Arg> = [q.x_zero, q.w_zero, p.b_at].into_iter().chain(scales).map(optional).collect();
    args.push(optional(r.and_then(|r| r.y_zero)));
    args.extend([step(q.w_zero)?, step(scales[1])?, flip(p.x), flip(p.w), flip(p.y)].map(Arg::U32));
    Ok(args)
}

/// Completes a launch that stores the result.
pub(super) fn finish(call: &Call, p: &ConvProblem, launch: Launch) -> Result<Launch> {
    call.finish(launch, value(p), p.epilogue.as_ref(), p.own_inputs)
}
