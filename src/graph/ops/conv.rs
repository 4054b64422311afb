//! Convolutions.

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::conv::{ConvQuant, Requantize};
use crate::graph::problem::{ConvProblem, Window};
use crate::graph::{Lower, OpDef, Problem, Refusal, Site, Type};

const fn row(
    name: &'static str,
    infer: fn(&Site) -> Result<Vec<Type>, Refusal>,
    lower: fn(&Site, &[Type]) -> Result<Problem>,
) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::Family(lower) }
}

pub(super) static OPS: &[OpDef] = &[
    row("Conv", |s| infer(s, &Inputs::FLOAT, s.ty(0)?.dtype), |s, t| lower(s, &Inputs::FLOAT, t, None)),
    row("ConvTranspose", |s| infer(s, &Inputs::TRANSPOSED, s.ty(0)?.dtype), |s, t| lower(s, &Inputs::TRANSPOSED, t, None)),
    row("ConvInteger", |s| infer(s, &Inputs::FLOAT, DType::I32), conv_integer),
    row("QLinearConv", |s| infer(s, &Inputs::QLINEAR, s.input(7).map_or(DType::U8, |z| z.ty.dtype)), qlinear_conv),
];

/// Which inputs an operator gives what in.
struct Inputs {
    x: usize,
    w: usize,
    b: usize,
    transposed: bool,
}

impl Inputs {
    const FLOAT: Inputs = Inputs { x: 0, w: 1, b: 2, transposed: false };
    const TRANSPOSED: Inputs = Inputs { transposed: true, ..Inputs::FLOAT };
    const QLINEAR: Inputs = Inputs { x: 0, w: 3, b: 8, transposed: false };
}

/// Window, groups and output channels.
fn geometry(site: &Site, at: &Inputs) -> Result<(Window, usize, usize)> {
    let (x, w) = (&site.ty(at.x)?.shape, &site.ty(at.w)?.shape);
    if x.rank() < 3 || x.rank() != w.rank() {
        return Err(site.error(format!("an image of shape {x} and weights of shape {w}")));
    }
    let groups =
        usize::try_from(site.int("group", 1)).ok().filter(|&g| g > 0).ok_or_else(|| site.error("group must be positive"))?;
    let kernel = w[2..].to_vec();
    let named = site.ints("kernel_shape").is_some_and(|k| k.iter().map(|&v| v as usize).ne(kernel.iter().copied()));
    let (own, given) = if at.transposed { (x[1], w[0]) } else { (x[1], w[1] * groups) };
    if named || own != given || !w[0].is_multiple_of(groups) {
        return Err(site.error(format!("weights of shape {w} do not fit {own} channels in {groups} groups")));
    }
    let (window, m) = if at.transposed {
        (Window::transposed(site, &x[2..], kernel)?, w[1] * groups)
    } else {
        (Window::new(site, &x[2..], kernel)?, w[0])
    };
    Ok((window, groups, m))
}

fn infer(site: &Site, at: &Inputs, dtype: DType) -> Result<Vec<Type>, Refusal> {
    let (window, _, m) = geometry(site, at)?;
    let shape: Shape = [site.ty(at.x)?.shape[0], m].into_iter().chain(window.output).collect();
    Ok(vec![Type::new(dtype, shape)])
}

fn lower(site: &Site, at: &Inputs, out: &[Type], quant: Option<ConvQuant>) -> Result<Problem> {
    let (window, groups, m) = geometry(site, at)?;
    let (x, w) = (site.ty(at.x)?, site.ty(at.w)?);
    let float_bias = quant.as_ref().is_none_or(|q| q.requantize.is_some());
    Ok(Problem::Conv(ConvProblem {
        n: x.shape[0],
        c: x.shape[1],
        m,
        groups,
        window,
        transposed: at.transposed,
        x: x.dtype,
        w: w.dtype,
        w_as: lowered(site, w.dtype)?,
        y: out[0].dtype,
        x_at: at.x,
        w_at: at.w,
        b_at: (float_bias && site.input(at.b).is_some()).then_some(at.b),
        own_inputs: site.inputs.len(),
        quant,
        epilogue: None,
    }))
}

/// What weights of `dtype` are rounded to: the attribute `weight_precision` says.
fn lowered(site: &Site, dtype: DType) -> Result<DType> {
    match site.str("weight_precision", "") {
        "" => Ok(dtype),
        "f16" if dtype == DType::F32 => Ok(DType::F16),
        other => Err(site.error(format!("weight_precision {other:?} of {dtype} is unknown"))),
    }
}

fn conv_integer(site: &Site, out: &[Type]) -> Result<Problem> {
    let given = |i: usize| site.input(i).map(|_| i);
    lower(site, &Inputs::FLOAT, out, Some(ConvQuant { x_zero: given(2), w_zero: given(3), requantize: None }))
}

fn qlinear_conv(site: &Site, out: &[Type]) -> Result<Problem> {
    let given = |i: usize| site.input(i).map(|_| i);
    let requantize = Some(Requantize { x_scale: 1, w_scale: 4, y_scale: 6, y_zero: given(7) });
    lower(site, &Inputs::QLINEAR, out, Some(ConvQuant { x_zero: given(2), w_zero: given(5), requantize }))
}
