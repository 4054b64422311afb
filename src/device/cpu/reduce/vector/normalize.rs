//! Normalisation of contiguous rows.

use crate::device::cpu::isa::{Work, fold_lanes};
use crate::graph::problem::reduce::Normalize;

/// Rows from number `first` on, normalised and scaled.
pub(super) struct NormalizeRows<'a> {
    pub norm: &'a Normalize,
    pub first: usize,
    pub x: &'a [f32],
    pub y: &'a mut [f32],
    /// `period * per_row` factors each.
    pub scale: &'a [f32],
    pub bias: &'a [f32],
}

impl Work for NormalizeRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let (norm, a) = (self.norm, &self.norm.affine);
        let rows = self.x.chunks_exact(norm.len).zip(self.y.chunks_exact_mut(norm.len));
        for (r, (x, y)) in rows.enumerate() {
            let n = norm.len as f32;
            let mean = if norm.center { fold_lanes(x, 0.0, |v| v, |a, b| a + b) / n } else { 0.0 };
            let variance = fold_lanes(x, 0.0, |v| (v - mean) * (v - mean), |a, b| a + b) / n;
            let inverse = 1.0 / (variance + norm.epsilon).sqrt();
            let at = (self.first + r) % a.period * a.per_row;
            let (scale, bias) = (&self.scale[at..at + a.per_row], &self.bias[at..at + a.per_row]);
            if a.inner == 1 {
                for (((y, &x), s), b) in y.iter_mut().zip(x).zip(scale).zip(bias) {
                    *y = (x - mean) * inverse * s + b;
                }
            } else {
                let parts = y.chunks_exact_mut(a.inner).zip(x.chunks_exact(a.inner)).zip(scale.iter().zip(bias));
                for ((y, x), (s, b)) in parts {
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * inverse * s + b);
                }
            }
        }
    }
}

/// `x * factor + shift`: one pair for each row from `first` on, or for each element of a row.
pub(super) struct ScaleRows<'a> {
    pub first: usize,
    pub len: usize,
    pub x: &'a [f32],
    pub y: &'a mut [f32],
    pub factors: &'a [(f32, f32)],
    pub each_element: bool,
}

impl Work for ScaleRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        for (r, (x, y)) in self.x.chunks_exact(self.len).zip(self.y.chunks_exact_mut(self.len)).enumerate() {
            if self.each_element {
                y.iter_mut().zip(x).zip(self.factors).for_each(|((y, &x), (f, s))| *y = x * f + s);
            } else {
                let (f, s) = self.factors[(self.first + r) % self.factors.len()];
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * f + s);
            }
        }
    }
}
