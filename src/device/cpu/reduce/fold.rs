//! References of folds, arg-reductions and running sums, in f64 or exact integers.

use super::super::widen::{from_f64, from_i128, to_f64, to_i128};
use crate::base::{DType, TensorView, TensorViewMut};
use crate::graph::problem::reduce::{Fold, Groups, Rows};

/// Folds of every type. Integers wrap, and their means are truncated; norms and logarithms of integers are computed in f64 and truncated.
pub(super) fn fold(fold: Fold, groups: &Groups, x: &TensorView, y: &mut TensorViewMut) {
    let (kept, reduced) = (groups.offsets(false), groups.offsets(true));
    let exact = !x.dtype.is_float() && !matches!(fold, Fold::L2 | Fold::LogSum | Fold::LogSumExp);
    if exact {
        let values = to_i128(x);
        let out: Vec<i128> = kept.iter().map(|k| fold_exact(fold, x.dtype, reduced.iter().map(|r| values[k + r]))).collect();
        from_i128(y, &out);
    } else {
        let values = to_f64(x);
        let out: Vec<f64> = kept.iter().map(|k| fold_f64(fold, reduced.iter().map(|r| values[k + r]))).collect();
        from_f64(y, &out);
    }
}

fn fold_exact(fold: Fold, dtype: DType, mut values: impl Iterator<Item = i128>) -> i128 {
    let (lo, hi) = match dtype {
        DType::U64 => (0, u64::MAX.into()),
        DType::Bool => (0, 1),
        _ => dtype.int_range().map_or((0, 0), |(lo, hi)| (lo.into(), hi.into())),
    };
    match fold {
        Fold::Max => values.max().unwrap_or(lo),
        Fold::Min => values.min().unwrap_or(hi),
        // Only the low 64 bits are stored: they do not depend on what is cut off above them.
        Fold::Prod => values.fold(1, |p, v| i128::from((p as i64).wrapping_mul(v as i64))),
        Fold::Mean => {
            let (sum, n) = values.fold((0i128, 0), |(sum, n), v| (sum.wrapping_add(v), n + 1));
            sum.checked_div(n).unwrap_or(0)
        }
        Fold::L1 => values.map(i128::abs).fold(0, i128::wrapping_add),
        Fold::SumSquare => values.map(|v| v.wrapping_mul(v)).fold(0, i128::wrapping_add),
        _ => values.by_ref().fold(0, i128::wrapping_add),
    }
}

/// `max` that keeps NaN.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn fold_f64(fold: Fold, values: impl Iterator<Item = f64> + Clone) -> f64 {
    let sum = |f: fn(f64) -> f64| values.clone().map(f).sum::<f64>() + 0.0;
    match fold {
        Fold::Sum => sum(|v| v),
        Fold::Mean => sum(|v| v) / values.count() as f64,
        Fold::Max => values.fold(f64::NEG_INFINITY, larger),
        Fold::Min => -values.map(|v| -v).fold(f64::NEG_INFINITY, larger),
        Fold::Prod => values.product(),
        Fold::L1 => sum(f64::abs),
        Fold::L2 => sum(|v| v * v).sqrt(),
        Fold::LogSum => sum(|v| v).ln(),
        Fold::LogSumExp => {
            let max = values.clone().fold(f64::NEG_INFINITY, larger);
            if max.is_infinite() { max } else { max + values.map(|v| (v - max).exp()).sum::<f64>().ln() }
        }
        Fold::SumSquare => sum(|v| v * v),
    }
}

/// Index of the extreme element of each row, for every type.
pub(super) fn arg(rows: Rows, max: bool, last: bool, x: &TensorView, y: &mut TensorViewMut) {
    let out = y.slice::<i64>();
    if x.dtype.is_float() {
        let values = to_f64(x);
        out.iter_mut().enumerate().for_each(|(r, o)| *o = extreme(row(&values, rows, r), max, last));
    } else {
        let values = to_i128(x);
        out.iter_mut().enumerate().for_each(|(r, o)| *o = extreme(row(&values, rows, r), max, last));
    }
}

/// Elements of row `r`.
pub(super) fn row<T: Copy>(values: &[T], rows: Rows, r: usize) -> impl Iterator<Item = T> + Clone + '_ {
    let start = rows.start(r);
    (0..rows.len).map(move |i| values[start + i * rows.inner])
}

fn extreme<T: PartialOrd + Copy>(values: impl Iterator<Item = T>, max: bool, last: bool) -> i64 {
    let better = |new: T, old: T| if max { new > old } else { new < old };
    let mut best: Option<(usize, T)> = None;
    for (i, v) in values.enumerate() {
        if best.is_none_or(|(_, b)| better(v, b) || (last && v == b)) {
            best = Some((i, v));
        }
    }
    best.map_or(0, |(i, _)| i as i64)
}

/// Running sums of every type.
pub(super) fn cumsum(rows: Rows, exclusive: bool, reverse: bool, x: &TensorView, y: &mut TensorViewMut) {
    if x.dtype.is_float() {
        let mut values = to_f64(x);
        run_sums(&mut values, rows, exclusive, reverse, 0.0, |a, b| a + b);
        from_f64(y, &values);
    } else {
        let mut values = to_i128(x);
        run_sums(&mut values, rows, exclusive, reverse, 0, i128::wrapping_add);
        from_i128(y, &values);
    }
}

fn run_sums<T: Copy>(values: &mut [T], rows: Rows, exclusive: bool, reverse: bool, zero: T, add: fn(T, T) -> T) {
    for r in 0..rows.count() {
        let mut sum = zero;
        for i in 0..rows.len {
            let i = if reverse { rows.len - 1 - i } else { i };
            let v = &mut values[rows.start(r) + i * rows.inner];
            let next = add(sum, *v);
            *v = if exclusive { sum } else { next };
            sum = next;
        }
    }
}
