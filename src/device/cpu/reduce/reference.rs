//! The reference of the reduce family: every operator and element type, in f64 or exact integers, one thread.

use super::super::widen::{from_f64, to_f64};
use super::{fold, normalize};
use crate::base::TensorView;
use crate::device::cpu::Call;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::reduce::{ReduceKind, Rows, SoftmaxKind};

/// Solves any reduce problem.
pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Reduce(p) = call.problem else { return Err(bind("another family's problem")) };
    match &p.kind {
        ReduceKind::Normalize(norm) => normalize::normalize(norm, call),
        ReduceKind::Standardize { groups, epsilon } => normalize::standardize(groups, *epsilon, call),
        ReduceKind::BatchNorm(norm) => normalize::batch(norm, call),
        ReduceKind::DynamicQuantize => normalize::dynamic_quantize(call),
        kind => return rowwise(kind, call),
    }
    Ok(())
}

fn bind(what: &str) -> Error {
    Error::BadInput(format!("a reduce kernel was called with {what}"))
}

/// The kinds with one input and one output that is always wanted.
fn rowwise(kind: &ReduceKind, call: &mut Call) -> Result<()> {
    let x = call.inputs[0].as_ref().ok_or_else(|| bind("no input"))?;
    let y = call.outputs[0].as_mut().ok_or_else(|| bind("no output"))?;
    match *kind {
        ReduceKind::Fold { fold, ref groups } => fold::fold(fold, groups, x, y),
        ReduceKind::Arg { rows, max, last } => fold::arg(rows, max, last, x, y),
        ReduceKind::CumSum { rows, exclusive, reverse } => fold::cumsum(rows, exclusive, reverse, x, y),
        ReduceKind::Softmax { rows, kind } => from_f64(y, &each_row(x, rows, |row| softmax(kind, row))),
        ReduceKind::LpNormalize { rows, p } => from_f64(y, &each_row(x, rows, |row| lp(p, row))),
        ReduceKind::QuantizedSoftmax { rows } => from_f64(y, &quantized_softmax(call.inputs, rows)?),
        _ => return Err(bind("a kind that has its own reference")),
    }
    Ok(())
}

/// `f` applied to each row in place.
fn each_row(x: &TensorView, rows: Rows, f: impl Fn(&mut [f64])) -> Vec<f64> {
    let mut values = to_f64(x);
    for r in 0..rows.count() {
        let mut row: Vec<f64> = fold::row(&values, rows, r).collect();
        f(&mut row);
        row.iter().enumerate().for_each(|(i, &v)| values[rows.start(r) + i * rows.inner] = v);
    }
    values
}

fn softmax(kind: SoftmaxKind, row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if kind == SoftmaxKind::Hardmax {
        let first = row.iter().position(|&v| v == max).unwrap_or(0);
        row.iter_mut().enumerate().for_each(|(i, v)| *v = f64::from(u8::from(i == first)));
        return;
    }
    let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
    match kind {
        SoftmaxKind::LogSoftmax => row.iter_mut().for_each(|v| *v = *v - max - sum.ln()),
        _ => row.iter_mut().for_each(|v| *v = (*v - max).exp() / sum),
    }
}

fn lp(p: u8, row: &mut [f64]) {
    let norm = match p {
        1 => row.iter().map(|v| v.abs()).sum::<f64>(),
        _ => row.iter().map(|v| v * v).sum::<f64>().sqrt(),
    };
    if norm != 0.0 {
        row.iter_mut().for_each(|v| *v /= norm);
    }
}

/// Softmax of dequantised rows; the result is rounded half to even.
fn quantized_softmax(inputs: &[Option<TensorView>], rows: Rows) -> Result<Vec<f64>> {
    let one = |i: usize| inputs.get(i).and_then(|v| v.as_ref()).and_then(|v| to_f64(v).first().copied());
    let scales = one(1).zip(one(3)).ok_or_else(|| bind("no scale"))?;
    let zero = one(4).unwrap_or(0.0);
    let x = inputs[0].as_ref().ok_or_else(|| bind("no input"))?;
    Ok(each_row(x, rows, |row| {
        // The zero point of x cancels: softmax does not change when all scores move alike.
        row.iter_mut().for_each(|v| *v *= scales.0);
        softmax(SoftmaxKind::Softmax, row);
        row.iter_mut().for_each(|v| *v = (*v / scales.1).round_ties_even() + zero);
    }))
}
