//! Layer, RMS, instance, group and batch normalisation.

use super::reduce::{infer_same, problem};
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::pool::Pooling;
use crate::graph::problem::reduce::{Affine, BatchNorm, Normalize, ReduceKind};
use crate::graph::problem::{PoolProblem, Problem, ScalarProblem, Window};
use crate::graph::{Feed, Lower, OpDef, Parts, Refusal, Site, Type};
use crate::scalar::{arg, constant};

const fn layer(domain: &'static str, name: &'static str) -> OpDef {
    OpDef { domain, name, infer: infer_layer, lower: Lower::Family(lower_layer) }
}

const fn skip(name: &'static str) -> OpDef {
    OpDef { domain: "com.microsoft", name, infer: infer_skip, lower: Lower::Family(lower_skip) }
}

pub(super) static OPS: &[OpDef] = &[
    layer("", "LayerNormalization"),
    layer("", "RMSNormalization"),
    layer("", "SimplifiedLayerNormalization"),
    layer("com.microsoft", "SimplifiedLayerNormalization"),
    skip("SkipLayerNormalization"),
    skip("SkipSimplifiedLayerNormalization"),
    OpDef { domain: "", name: "InstanceNormalization", infer: infer_same, lower: Lower::Family(lower_instance) },
    OpDef { domain: "", name: "GroupNormalization", infer: infer_same, lower: Lower::Family(lower_group) },
    OpDef { domain: "", name: "BatchNormalization", infer: infer_batch, lower: Lower::Family(lower_batch) },
    OpDef { domain: "", name: "LRN", infer: infer_same, lower: Lower::Parts(lower_lrn) },
];

/// The statistics' element type (`stash_type`, a TensorProto number); f32 unless said otherwise.
fn stash(site: &Site) -> Result<DType> {
    match site.int("stash_type", 1) {
        1 => Ok(DType::F32),
        10 => Ok(DType::F16),
        11 => Ok(DType::F64),
        16 => Ok(DType::BF16),
        other => Err(site.error(format!("stash_type {other} is not a float type"))),
    }
}

fn infer_layer(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    let axis = site.axis(site.int("axis", -1), x.shape.rank())?;
    let stats = x.shape.iter().enumerate().map(|(i, &d)| if i < axis { d } else { 1 }).collect::<Shape>();
    let mut types = vec![Type::new(stash(site)?, stats); site.output_count()];
    types[0] = x.clone();
    Ok(types)
}

/// Type of the factor in input `i`, checked to broadcast to `shape`.
fn factor(site: &Site, i: usize, shape: &Shape) -> Result<Option<Type>> {
    let Some(operand) = site.input(i) else { return Ok(None) };
    let mut ty = operand.ty.clone();
    while ty.shape.rank() > shape.rank() && ty.shape[0] == 1 {
        ty.shape.remove(0);
    }
    if !ty.dtype.is_float() || ty.shape.broadcast_strides(shape).is_none() {
        return Err(site.error(format!("input {i} is {} {}, not floats that broadcast to {shape}", ty.dtype, ty.shape)));
    }
    Ok(Some(ty))
}

fn floats<'a>(site: &Site<'a>) -> Result<&'a Type> {
    let x = site.ty(0)?;
    if x.dtype.is_float() { Ok(x) } else { Err(site.error(format!("input 0 is {}, not a float", x.dtype))) }
}

/// Normalisation over the axes from `axis` on.
fn trailing(site: &Site, axis: usize, center: bool, skip: bool, epsilon: f32) -> Result<Normalize> {
    let x = &floats(site)?.shape;
    let shape = Shape::from(&x[axis..]);
    let len = shape.numel();
    let affine = Affine { period: 1, per_row: len, inner: 1, shape: shape.clone() };
    let rows = x[..axis].iter().product();
    let mut norm = Normalize { rows, len, center, epsilon, scale: None, bias: None, affine, skip };
    let [scale, bias, ..] = norm.slots();
    norm.scale = factor(site, scale, &shape)?;
    norm.bias = if center { factor(site, bias, &shape)? } else { None };
    Ok(norm)
}

fn lower_layer(site: &Site, out: &[Type]) -> Result<Problem> {
    let axis = site.axis(site.int("axis", -1), site.ty(0)?.shape.rank())?;
    let center = site.node.op == "LayerNormalization";
    problem(site, out, ReduceKind::Normalize(trailing(site, axis, center, false, site.float("epsilon", 1e-5))?))
}

fn infer_skip(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    let mut stats = x.shape.clone();
    if let Some(last) = stats.last_mut() {
        *last = 1;
    }
    let stats = Type::new(DType::F32, stats);
    Ok([x.clone(), stats.clone(), stats, x.clone()].into_iter().take(site.output_count()).collect())
}

fn lower_skip(site: &Site, out: &[Type]) -> Result<Problem> {
    let x = site.ty(0)?;
    let center = site.node.op == "SkipLayerNormalization";
    // The simplified form has no beta: its input 3 is the bias of x.
    if !center && site.input(3).is_some() {
        return Err(site.unsupported("a bias without beta"));
    }
    let last = site.axis(-1, x.shape.rank())?;
    if site.ty(1)?.dtype != x.dtype || site.ty(1)?.shape.numel() != x.shape.numel() {
        return Err(site.unsupported("a skip of another shape than the input"));
    }
    if site.input(4).is_some_and(|b| b.ty.dtype != x.dtype || b.ty.shape.numel() != x.shape[last]) {
        return Err(site.error("input 4 must be one element of the input's type for each of the last axis"));
    }
    problem(site, out, ReduceKind::Normalize(trailing(site, last, center, true, site.float("epsilon", 1e-12))?))
}

/// Normalisation of `groups` groups of channels, with a factor for each channel or for each group.
fn channelwise(site: &Site, groups: usize, per_group: bool) -> Result<Normalize> {
    let x = &floats(site)?.shape;
    if x.rank() < 2 {
        return Err(site.error("the input needs a batch and a channel axis"));
    }
    let channels = x[1];
    if groups == 0 || channels % groups != 0 {
        return Err(site.error(format!("{channels} channels do not make {groups} groups")));
    }
    let inner: usize = x[2..].iter().product();
    let len = channels / groups * inner;
    let (per_row, inner) = if per_group { (1, len) } else { (channels / groups, inner) };
    let shape = Shape::from([groups * per_row]);
    let (scale, bias) = (factor(site, 1, &shape)?, factor(site, 2, &shape)?);
    let affine = Affine { period: groups, per_row, inner, shape };
    let epsilon = site.float("epsilon", 1e-5);
    Ok(Normalize { rows: x[0] * groups, len, center: true, epsilon, scale, bias, affine, skip: false })
}

fn lower_instance(site: &Site, out: &[Type]) -> Result<Problem> {
    let channels = site.ty(0)?.shape.get(1).copied().unwrap_or(0);
    problem(site, out, ReduceKind::Normalize(channelwise(site, channels.max(1), false)?))
}

fn lower_group(site: &Site, out: &[Type]) -> Result<Problem> {
    let groups = site.int("num_groups", 0).max(0) as usize;
    // Operator set 18 has one factor for each group, 21 one for each channel.
    problem(site, out, ReduceKind::Normalize(channelwise(site, groups, site.opset() < 21)?))
}

fn infer_batch(site: &Site) -> Result<Vec<Type>, Refusal> {
    let (x, mean) = (site.ty(0)?, site.ty(3)?);
    let training = site.int("training_mode", 0) != 0;
    if !training && (1..site.output_count()).any(|i| site.wants(i)) {
        return Err(site.unsupported("statistics as outputs without training_mode").into());
    }
    let mut types = vec![mean.clone(); site.output_count()];
    types[0] = x.clone();
    Ok(types)
}

fn lower_batch(site: &Site, out: &[Type]) -> Result<Problem> {
    let x = &floats(site)?.shape;
    let (batch, channels) = (x.first().copied().unwrap_or(1), x.get(1).copied().unwrap_or(1));
    for i in 1..5 {
        let ty = site.ty(i)?;
        if !ty.dtype.is_float() || ty.shape.numel() != channels {
            return Err(site.error(format!("input {i} must be one float for each of {channels} channels")));
        }
    }
    let inner = x.iter().skip(2).product();
    let (epsilon, momentum) = (site.float("epsilon", 1e-5), site.float("momentum", 0.9));
    let training = site.int("training_mode", 0) != 0;
    problem(site, out, ReduceKind::BatchNorm(BatchNorm { batch, channels, inner, epsilon, momentum, training }))
}

/// `x / (bias + alpha * mean)^beta`, where the mean is of the squares in a window of neighbouring channels, zeros beyond the first
/// and last: squares, an average pool over channels, a formula. The squares are f32 whatever x is.
fn lower_lrn(site: &Site, out: &[Type]) -> Result<Parts> {
    let x = floats(site)?;
    let size = usize::try_from(site.int("size", 0)).unwrap_or(0);
    if size == 0 || x.shape.rank() < 2 {
        return Err(site.error(format!("a window of {size} channels over a tensor of {} axes", x.shape.rank())));
    }
    let wide = Type::new(DType::F32, x.shape.clone());
    let input = [x.shape[1], x.shape[2..].iter().product()];
    let window = Window {
        input: input.to_vec(),
        output: input.to_vec(),
        kernel: vec![size, 1],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads: vec![((size - 1) / 2) as i64, 0],
        pads_end: vec![(size / 2) as i64, 0],
    };
    let pooling = Pooling::Average { include_pad: true };
    let mean = Problem::Pool(PoolProblem { pooling, planes: x.shape[0], window, dtype: DType::F32 });
    let scalar = |formula, operands: &[&Type], out: &Type| {
        Problem::Scalar(ScalarProblem { formula, operands: operands.iter().map(|&t| t.clone()).collect(), out: out.clone() })
    };
    let [alpha, beta, bias] = [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)].map(|(n, d)| f64::from(site.float(n, d)));
    let mut parts = Parts::default();
    let x_in = || Some(Feed::Input(0));
    let squares = parts.add(scalar(arg(0) * arg(0), &[x], &wide), vec![x_in()], vec![wide.clone()]);
    let mean = parts.add(mean, vec![Some(squares)], vec![wide.clone()]);
    let formula = arg(0) / (arg(1) * alpha + bias).pow(constant(beta));
    let y = parts.add(scalar(formula, &[x, &wide], &out[0]), vec![x_in(), Some(mean)], vec![out[0].clone()]);
    parts.outputs.push(y);
    Ok(parts)
}
