//! Softmax and normalisations: groups of elements by two statistics of their own.

use std::sync::Arc;

use super::walk::{Number, THREADS, Walk, grouped};
use crate::base::{DType, Shape};
use crate::device::gpu::call::Call;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::scalar::elementwise;
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::Type;
use crate::graph::problem::reduce::{BatchNorm, Groups, Normalize, Rows, SoftmaxKind};
use crate::scalar::{Formula, arg};

/// The variant for a walk, and the walk with as many slices as it wants.
fn variant(kind: &str, groups: &Groups, number: Number) -> (&'static Variant, Walk) {
    let cached = Variant::named(&format!("rows_{kind}_f32_cached"));
    let each = cached.number("cached") as usize;
    let walk = Walk::new(groups, number == Number::F32, each);
    if walk.pairs && walk.units() <= each * THREADS as usize {
        return (cached, walk);
    }
    (Variant::named(&format!("rows_{kind}_{}", number.name())), Walk::new(groups, false, 8))
}

/// What kernels/rows.ptx.j2 does with shares.
enum Shares {
    Kind(SoftmaxKind),
    /// One value for each group.
    LogSumExp,
}

fn shares(
    call: &Call,
    groups: &Groups,
    what: Shares,
    finish: Finish,
    scale: Pointer,
    operands: &[Pointer],
) -> Result<Vec<Launch>> {
    let x = call.input(0)?;
    let (mode, hard) = match what {
        Shares::Kind(SoftmaxKind::Softmax) => (0, false),
        Shares::Kind(SoftmaxKind::LogSoftmax) => (1, false),
        Shares::Kind(SoftmaxKind::Hardmax) => (2, true),
        Shares::LogSumExp => (3, false),
    };
    let number = if hard { Number::F64 } else { Number::of_floats(x.dtype) };
    let (variant, walk) = variant("softmax", groups, number);
    if walk.count == 0 || (walk.len == 0 && mode != 3) {
        return Ok(Vec::new());
    }
    let mut args = walk.arguments(Pointer::Input(0, 0), x.dtype);
    args.extend([Arg::U32(mode), Arg::Pointer(scale)]);
    let launch = Launch::new(variant, [walk.blocks(), 1, 1], args);
    Ok(vec![launch.finished(&Arc::new(finish.reading(x.dtype)), Pointer::Output(0, 0), operands)])
}

/// The type of what kernels/rows.ptx.j2 computes of x with a softmax.
fn value(x: DType, kind: SoftmaxKind) -> DType {
    if kind == SoftmaxKind::Hardmax { DType::F64 } else { Number::of_floats(x).dtype() }
}

/// Softmax and its kin of the rows of input 0.
pub fn softmax(call: &Call, rows: Rows, kind: SoftmaxKind) -> Result<Vec<Launch>> {
    let finish = Finish::new(Some(value(call.input(0)?.dtype, kind)), &arg(0), &[], call.output(0)?)?;
    shares(call, &grouped(rows), Shares::Kind(kind), finish, Pointer::Null, &[])
}

/// Logarithms of sums of exponentials.
pub fn log_sum_exp(call: &Call, groups: &Groups) -> Result<Vec<Launch>> {
    let finish = Finish::new(Some(Number::of_floats(call.input(0)?.dtype).dtype()), &arg(0), &[], call.output(0)?)?;
    shares(call, groups, Shares::LogSumExp, finish, Pointer::Null, &[])
}

/// Softmax of quantised rows, quantised again.
pub fn quantized_softmax(call: &Call, rows: Rows) -> Result<Vec<Launch>> {
    let mut formula = (arg(0) / arg(1)).round();
    let mut operands = vec![call.input(3)?.clone()];
    let mut pointers = vec![Pointer::Input(3, 0)];
    if let Ok(zero) = call.input(4) {
        formula = formula + arg(2);
        operands.push(zero.clone());
        pointers.push(Pointer::Input(4, 0));
    }
    let finish = Finish::new(Some(DType::F64), &formula, &operands, call.output(0)?)?;
    shares(call, &grouped(rows), Shares::Kind(SoftmaxKind::Softmax), finish, Pointer::Input(1, 0), &pointers)
}

/// Arguments of the kernel of moments beside the walk's.
struct Moments {
    /// 1: the mean is taken off. 2: epsilon is added to the deviation. 4: magnitudes instead of squares. 8: a norm of 0 divides nothing.
    mode: u32,
    /// Addresses of what is added to x, its bias, where the sum goes, and means, inverse deviations and variances.
    places: [Pointer; 6],
    /// What sums are divided by.
    count: f64,
    epsilon: f64,
}

fn moments(x: &Type, groups: &Groups, m: &Moments) -> Option<Launch> {
    let number = Number::of_floats(x.dtype);
    let (variant, walk) = variant("moments", groups, number);
    let mut args = walk.arguments(Pointer::Input(0, 0), x.dtype);
    args.push(Arg::U32(m.mode));
    args.extend(m.places.map(Arg::Pointer));
    args.extend([m.count, m.epsilon].map(|v| number.argument(v)));
    (walk.count > 0 && walk.len > 0).then(|| Launch::new(variant, [walk.blocks(), 1, 1], args))
}

/// Division of rows by their norm.
pub fn lp_normalize(call: &Call, rows: Rows, p: u8) -> Result<Vec<Launch>> {
    let mode = 8 | if p == 1 { 4 } else { 0 };
    alone(call, &grouped(rows), &Moments { mode, places: [Pointer::Null; 6], count: 1.0, epsilon: 0.0 })
}

/// Mean and variance normalisation over any axes.
pub fn standardize(call: &Call, groups: &Groups, epsilon: f64) -> Result<Vec<Launch>> {
    let count = groups.0.iter().filter(|g| g.1).map(|g| g.0).product::<usize>() as f64;
    alone(call, groups, &Moments { mode: 1 | 2, places: [Pointer::Null; 6], count, epsilon })
}

fn alone(call: &Call, groups: &Groups, m: &Moments) -> Result<Vec<Launch>> {
    let x = call.input(0)?;
    let finish = Finish::new(Some(Number::of_floats(x.dtype).dtype()), &arg(0), &[], call.output(0)?)?;
    let launch = moments(x, groups, m);
    Ok(launch.map(|l| l.finished(&Arc::new(finish.reading(x.dtype)), Pointer::Output(0, 0), &[])).into_iter().collect())
}

/// `value * scale + bias`, with those of the two that there are, and their places among the operands.
fn scaled(value: Formula, scale: bool, bias: bool) -> Formula {
    let value = if scale { value * arg(1) } else { value };
    if bias { value + arg(1 + usize::from(scale)) } else { value }
}

/// The shape that factors broadcast to as they belong to elements: `[row / period] + affine.shape + [inner]`.
fn factored(norm: &Normalize) -> Shape {
    let a = &norm.affine;
    let rows = norm.rows / a.period.max(1);
    [rows].into_iter().chain(a.shape.iter().copied()).chain((a.inner != 1).then_some(a.inner)).collect()
}

/// A factor's type under [`factored`].
fn factor(norm: &Normalize, ty: &Type) -> Type {
    let all = ty.shape.iter().copied().chain((norm.affine.inner != 1).then_some(1));
    Type::new(ty.dtype, all.collect::<Shape>())
}

/// Scratch bytes of statistics that are stored in another type than they are computed in.
pub fn normalize_scratch_bytes(norm: &Normalize) -> usize {
    norm.rows * 16
}

/// Layer, RMS, instance and group normalisation. Outputs: y, means, inverse deviations, what was normalised.
pub fn normalize(call: &Call, norm: &Normalize) -> Result<Vec<Launch>> {
    let x = call.input(0)?;
    let number = Number::of_floats(x.dtype);
    let [scale, bias, skip, own_bias] = norm.slots();
    let mut operands = Vec::new();
    let mut pointers = Vec::new();
    for (i, ty) in [(scale, &norm.scale), (bias, &norm.bias)] {
        operands.extend(ty.as_ref().map(|t| factor(norm, t)));
        pointers.extend(ty.as_ref().map(|_| Pointer::Input(i, 0)));
    }
    let formula = scaled(arg(0), norm.scale.is_some(), norm.bias.is_some());
    let output = |i: usize| call.outputs.get(i).and_then(Option::as_ref);
    let given = |i: usize| call.inputs.get(i).and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Input(i, 0));
    let mut places = [Pointer::Null; 6];
    if norm.skip {
        places[..2].copy_from_slice(&[given(skip), given(own_bias)]);
        places[2] = output(3).map_or(Pointer::Null, |_| Pointer::Output(3, 0));
    }
    let mut after = Vec::new();
    for i in [1, 2] {
        let Some(wanted) = output(i) else { continue };
        places[2 + i] = Pointer::Output(i, 0);
        if wanted.dtype != number.dtype() {
            places[2 + i] = Pointer::Scratch(((i - 1) * norm.rows * 8) as u64);
            let from = Type::new(number.dtype(), wanted.shape.clone());
            after.extend(elementwise(&arg(0), &[from], &[places[2 + i]], wanted, Pointer::Output(i, 0))?);
        }
    }
    // Where nobody wants the result itself it goes nowhere, but its statistics are still computed.
    let Some(out) = output(0) else { return Err(super::super::device::failed("a normalisation without result")) };
    let finish = Finish::new(Some(number.dtype()), &formula, &operands, &Type::new(out.dtype, factored(norm)))?;
    let moments = moments(
        x,
        &Groups(vec![(norm.rows, false), (norm.len, true)]),
        &Moments { mode: norm.center.into(), places, count: norm.len as f64, epsilon: norm.epsilon.into() },
    );
    let first = moments.map(|l| l.finished(&Arc::new(finish.reading(x.dtype)), Pointer::Output(0, 0), &pointers));
    Ok(first.into_iter().chain(after).collect())
}

/// Scratch bytes of means and variances of channels.
pub fn batch_scratch_bytes(norm: &BatchNorm) -> usize {
    if norm.training { norm.channels * 16 } else { 0 }
}

/// Batch normalisation: with given statistics a formula, else the kernel of moments and formulas for the running ones.
pub fn batch_norm(call: &Call, norm: &BatchNorm) -> Result<Vec<Launch>> {
    let (x, epsilon) = (call.input(0)?, f64::from(norm.epsilon));
    let shape = Shape::from([norm.batch, norm.channels, norm.inner]);
    let channel = |i: usize| -> Result<Type> { Ok(Type::new(call.input(i)?.dtype, Shape::from([norm.channels, 1]))) };
    let output = |i: usize| call.outputs.get(i).and_then(Option::as_ref);
    let mut launches = Vec::new();
    if !norm.training {
        let Some(out) = output(0) else { return Ok(launches) };
        let types = [Type::new(x.dtype, shape.clone()), channel(1)?, channel(2)?, channel(3)?, channel(4)?];
        let formula = (arg(0) - arg(3)) * (arg(1) / (arg(4) + epsilon).sqrt()) + arg(2);
        return elementwise(
            &formula,
            &types,
            &[0, 1, 2, 3, 4].map(|i| Pointer::Input(i, 0)),
            &Type::new(out.dtype, shape),
            Pointer::Output(0, 0),
        );
    }
    let number = Number::of_floats(x.dtype);
    let stats = [Pointer::Scratch(0), Pointer::Scratch((norm.channels * 8) as u64)];
    let places = [Pointer::Null, Pointer::Null, Pointer::Null, stats[0], Pointer::Null, stats[1]];
    let groups = Groups(vec![(norm.batch, true), (norm.channels, false), (norm.inner, true)]);
    let count = (norm.batch * norm.inner) as f64;
    let out = output(0).cloned().ok_or_else(|| super::super::device::failed("a normalisation without result"))?;
    let finish = Finish::new(
        Some(number.dtype()),
        &scaled(arg(0), true, true),
        &[channel(1)?, channel(2)?],
        &Type::new(out.dtype, shape),
    )?;
    let launch = moments(x, &groups, &Moments { mode: 1, places, count, epsilon });
    launches.extend(launch.map(|l| {
        l.finished(&Arc::new(finish.reading(x.dtype)), Pointer::Output(0, 0), &[Pointer::Input(1, 0), Pointer::Input(2, 0)])
    }));
    let keep = f64::from(norm.momentum);
    for (i, now) in [(1, stats[0]), (2, stats[1])] {
        let Some(wanted) = output(i) else { continue };
        let types = [call.input(2 + i)?.clone(), Type::new(number.dtype(), wanted.shape.clone())];
        let formula = arg(0) * keep + arg(1) * (1.0 - keep);
        launches.extend(elementwise(&formula, &types, &[Pointer::Input(2 + i, 0), now], wanted, Pointer::Output(i, 0))?);
    }
    Ok(launches)
}
