//! Folds along rows and down columns.

use crate::device::cpu::isa::{Work, fold_lanes};
use crate::graph::problem::reduce::Fold;

/// Folds `[outer, len, inner]` along `len`; y is `[outer, inner]`.
pub(super) struct FoldRows<'a> {
    pub fold: Fold,
    pub x: &'a [f32],
    pub y: &'a mut [f32],
    pub len: usize,
    pub inner: usize,
}

impl Work for FoldRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        match self.fold {
            Fold::Max => self.apply(f32::NEG_INFINITY, |v| v, |a, b| if a > b || a.is_nan() { a } else { b }),
            Fold::Min => self.apply(f32::INFINITY, |v| v, |a, b| if a < b || a.is_nan() { a } else { b }),
            Fold::L1 => self.apply(0.0, f32::abs, |a, b| a + b),
            Fold::L2 | Fold::SumSquare => self.apply(0.0, |v| v * v, |a, b| a + b),
            _ => self.apply(0.0, |v| v, |a, b| a + b),
        }
    }
}

impl FoldRows<'_> {
    #[inline(always)]
    fn apply(self, start: f32, f: impl Fn(f32) -> f32 + Copy, op: impl Fn(f32, f32) -> f32 + Copy) {
        let (fold, len, inner) = (self.fold, self.len, self.inner);
        if inner == 1 {
            self.y.iter_mut().enumerate().for_each(|(r, y)| *y = fold_lanes(&self.x[r * len..][..len], start, f, op));
        } else {
            let slabs = self.y.chunks_exact_mut(inner).enumerate();
            slabs.for_each(|(r, y)| columns(&self.x[r * len * inner..][..len * inner], y, start, f, op));
        }
        match fold {
            Fold::Mean => self.y.iter_mut().for_each(|y| *y /= len as f32),
            Fold::L2 => self.y.iter_mut().for_each(|y| *y = y.sqrt()),
            Fold::LogSum => self.y.iter_mut().for_each(|y| *y = y.ln()),
            _ => {}
        }
    }
}

/// Columns in blocks of 64; of long columns each 64 rows are summed apart, so that errors do not grow with the length.
#[inline(always)]
fn columns(x: &[f32], y: &mut [f32], start: f32, f: impl Fn(f32) -> f32, op: impl Fn(f32, f32) -> f32) {
    let inner = y.len();
    for (block, out) in y.chunks_mut(64).enumerate() {
        let mut total = [start; 64];
        for rows in x.chunks(64 * inner) {
            let mut part = [start; 64];
            for row in rows.chunks_exact(inner) {
                let row = &row[block * 64..][..out.len()];
                part.iter_mut().zip(row).for_each(|(p, &v)| *p = op(*p, f(v)));
            }
            total.iter_mut().zip(&part).for_each(|(t, &p)| *t = op(*t, p));
        }
        out.copy_from_slice(&total[..out.len()]);
    }
}
