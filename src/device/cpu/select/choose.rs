//! Top-k, non-zero, compress and non-maximum suppression.

use std::cmp::Ordering;

use crate::base::{DType, TensorView, TensorViewMut};
use crate::device::cpu::Call;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::select::Selection;

fn error(why: impl Into<String>) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Select(problem) = call.problem else { return Err(error("the problem is of another family")) };
    let input = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")));
    let x = input(0)?;
    if let Selection::TopK { axis, k, largest } = problem.selection {
        return top_k(x, axis, k, largest, call.outputs);
    }
    let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
    match &problem.selection {
        Selection::TopK { .. } => Ok(()),
        Selection::NonZero => non_zero(x, out),
        Selection::Compress { axis } => compress(x, input(1)?, *axis, out),
        Selection::NonMaxSuppression(nms) => {
            let scores = input(1)?;
            let shape = [scores.shape[0], scores.shape[1], scores.shape[2]];
            let kept = nms.select(x.slice(), scores.slice(), shape);
            fits(out.slice::<i64>(), kept.as_flattened())
        }
    }
}

fn fits(out: &mut [i64], values: &[i64]) -> Result<()> {
    if out.len() != values.len() {
        return Err(error("the elements are not those that the plan was made for"));
    }
    out.copy_from_slice(values);
    Ok(())
}

/// Keys that sort like the elements: i64 for integers, f64 for floats.
fn order(x: &TensorView) -> Result<Box<dyn Fn(usize, usize) -> Ordering>> {
    let tensor = x.to_tensor()?;
    Ok(match tensor.to_i64() {
        Some(v) if x.dtype == DType::U64 => Box::new(move |i, j| (v[i] as u64).cmp(&(v[j] as u64))),
        Some(v) => Box::new(move |i, j| v[i].cmp(&v[j])),
        None => {
            let v = tensor.to_f64();
            Box::new(move |i, j| v[i].total_cmp(&v[j]))
        }
    })
}

fn top_k(x: &TensorView, axis: usize, k: usize, largest: bool, outputs: &mut [Option<TensorViewMut>]) -> Result<()> {
    let (dim, inner): (usize, usize) = (x.shape[axis], x.shape[axis + 1..].iter().product());
    let outer: usize = x.shape[..axis].iter().product();
    let (size, compare) = (x.dtype.size_bytes(), order(x)?);
    for line in 0..outer * inner {
        let (o, i) = (line / inner, line % inner);
        let at = |j: usize| (o * dim + j) * inner + i;
        let mut all: Vec<usize> = (0..dim).collect();
        let by = |&a: &usize, &b: &usize| if largest { compare(at(b), at(a)) } else { compare(at(a), at(b)) }.then(a.cmp(&b));
        if k < dim && k > 0 {
            all.select_nth_unstable_by(k - 1, by);
        }
        all.truncate(k);
        all.sort_unstable_by(by);
        for (rank, &j) in all.iter().enumerate() {
            let into = (o * k + rank) * inner + i;
            if let Some(Some(values)) = outputs.get_mut(0) {
                values.bytes[into * size..(into + 1) * size].copy_from_slice(&x.bytes[at(j) * size..(at(j) + 1) * size]);
            }
            if let Some(Some(places)) = outputs.get_mut(1) {
                places.slice::<i64>()[into] = j as i64;
            }
        }
    }
    Ok(())
}

fn non_zero(x: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let values = x.to_tensor()?.to_f64();
    let found: Vec<usize> = (0..values.len()).filter(|&i| values[i] != 0.0).collect();
    let strides = x.shape.strides();
    let mut rows = Vec::with_capacity(found.len() * strides.len());
    for (axis, stride) in strides.iter().enumerate() {
        rows.extend(found.iter().map(|i| (i / stride % x.shape[axis]) as i64));
    }
    fits(out.slice(), &rows)
}

fn compress(x: &TensorView, condition: &TensorView, axis: Option<usize>, out: &mut TensorViewMut) -> Result<()> {
    let kept: Vec<usize> = condition.bytes.iter().enumerate().filter(|(_, c)| **c != 0).map(|(i, _)| i).collect();
    let dim = axis.map_or(x.numel(), |a| x.shape[a]);
    let run = axis.map_or(1, |a| x.shape[a + 1..].iter().product::<usize>()) * x.dtype.size_bytes();
    if kept.last().is_some_and(|&i| i >= dim) || kept.is_empty() || run == 0 {
        return if kept.is_empty() || run == 0 { Ok(()) } else { Err(error("the condition is longer than the axis")) };
    }
    for (into, from) in out.bytes.chunks_exact_mut(kept.len() * run).zip(x.bytes.chunks_exact(dim * run)) {
        for (into, &i) in into.chunks_exact_mut(run).zip(&kept) {
            into.copy_from_slice(&from[i * run..(i + 1) * run]);
        }
    }
    Ok(())
}
