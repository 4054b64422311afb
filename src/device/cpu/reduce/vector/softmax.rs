//! Softmax and its logarithm, along contiguous rows or down columns.

use crate::device::cpu::exponent::{exp_below_zero, exp_sum, larger};
use crate::device::cpu::isa::{Work, fold_lanes};
use crate::scalar::cpu::math::log;

/// Softmax of `[outer, len, inner]` along `len`, y as large as x.
pub(in crate::device::cpu) struct Softmax<'a> {
    pub x: &'a [f32],
    pub y: &'a mut [f32],
    pub len: usize,
    pub inner: usize,
    pub log: bool,
}

impl Work for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        if self.len == 0 || self.inner == 0 {
            return;
        }
        let slabs = self.x.chunks_exact(self.len * self.inner).zip(self.y.chunks_exact_mut(self.len * self.inner));
        for (x, y) in slabs {
            match (self.inner, self.log) {
                (1, false) => softmax_row(x, y),
                (1, true) => log_softmax_row(x, y),
                _ => columns(x, y, self.inner, self.log),
            }
        }
    }
}

#[inline(always)]
fn softmax_row(x: &[f32], y: &mut [f32]) {
    let max = fold_lanes(x, f32::NEG_INFINITY, |v| v, larger);
    y.copy_from_slice(x);
    let factor = 1.0 / exp_sum(y, max);
    y.iter_mut().for_each(|y| *y *= factor);
}

#[inline(always)]
fn log_softmax_row(x: &[f32], y: &mut [f32]) {
    let max = fold_lanes(x, f32::NEG_INFINITY, |v| v, larger);
    let sum = fold_lanes(x, 0.0, |v| exp_below_zero(v - max), |a, b| a + b);
    let less = log(sum);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - max - less);
}

/// Columns in blocks of 64.
#[inline(always)]
fn columns(x: &[f32], y: &mut [f32], inner: usize, log_of: bool) {
    for from in (0..inner).step_by(64) {
        let n = 64.min(inner - from);
        let (mut max, mut sum) = ([f32::NEG_INFINITY; 64], [0f32; 64]);
        for row in x.chunks_exact(inner) {
            max.iter_mut().zip(&row[from..from + n]).for_each(|(m, &v)| *m = larger(*m, v));
        }
        for (row, out) in x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)) {
            for (((o, &v), m), s) in out[from..from + n].iter_mut().zip(&row[from..from + n]).zip(&max).zip(&mut sum) {
                let e = exp_below_zero(v - m);
                *s += e;
                *o = if log_of { v - m } else { e };
            }
        }
        for s in &mut sum {
            *s = if log_of { log(*s) } else { 1.0 / *s };
        }
        for out in y.chunks_exact_mut(inner) {
            for (o, s) in out[from..from + n].iter_mut().zip(&sum) {
                *o = if log_of { *o - s } else { *o * s };
            }
        }
    }
}
