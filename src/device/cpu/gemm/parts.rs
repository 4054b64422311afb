//! One product of rows by several matrices: their columns side by side, and results that go to outputs of their own.

use std::ops::Range;

use super::finish::input;
use crate::base::{Shape, Tensor, TensorView, TensorViewMut};
use crate::device::cpu::disjoint::Disjoint;
use crate::error::Result;
use crate::graph::problem::gemm::GemmProblem;

/// B of a product with several outputs, as `b` of the problem says that it lies; `None` where it is one matrix already.
pub(super) fn side_by_side(p: &GemmProblem, inputs: &[Option<TensorView>]) -> Result<Option<Tensor>> {
    if p.widths.len() < 2 {
        return Ok(None);
    }
    let parts: Vec<_> = p.b_inputs().map(|i| input(inputs, i)).collect::<Result<_>>()?;
    let row = |k: usize| parts.iter().zip(&p.widths).flat_map(move |(part, &w)| &part.bytes[k * w..(k + 1) * w]);
    let bytes: Vec<u8> = (0..p.k).flat_map(row).copied().collect();
    Ok(Some(Tensor::from_raw(p.b.dtype, Shape::from([p.k, p.n]), &bytes)?))
}

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
