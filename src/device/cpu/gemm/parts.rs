//! Results whose columns go to outputs of their own: one product of rows by several matrices.

use std::ops::Range;

use crate::base::TensorViewMut;
use crate::device::cpu::disjoint::Disjoint;

/// The columns of each output that is wanted, `[rows, columns]` of f32.
pub(super) struct Parts<'a>(Vec<(Range<usize>, Disjoint<'a, f32>)>);

impl<'a> Parts<'a> {
    /// Of outputs of these widths, side by side.
    pub fn new(widths: &[usize], outputs: &'a mut [Option<TensorViewMut>]) -> Self {
        let mut end = 0;
        let columns = widths.iter().map(|width| {
            end += width;
            end - width..end
        });
        let wanted = |(columns, out): (_, &'a mut Option<TensorViewMut>)| Some((columns, Disjoint::new(out.as_mut()?.slice())));
        Parts(columns.zip(outputs).filter_map(wanted).collect())
    }

    /// Takes results of a row, from `column` on. Each is given once.
    pub fn store(&self, (row, column): (usize, usize), x: &[f32]) {
        for (columns, out) in &self.0 {
            let (from, to) = (columns.start.max(column), columns.end.min(column + x.len()));
            if from < to {
                let at = row * columns.len() + from - columns.start;
                // SAFETY: each result is written by one thread once.
                unsafe { out.part(at, to - from) }.copy_from_slice(&x[from - column..to - column]);
            }
        }
    }
}
