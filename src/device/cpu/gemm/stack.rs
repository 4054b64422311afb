//! Products whose matrices are told while running (grouped products).

use super::blocks::SEGMENT;
use super::finish::{Finish, input, int_at};
use super::real::matrix_of;
use crate::base::TensorView;
use crate::error::{Error, Result};
use crate::graph::problem::gemm::GemmProblem;

/// Which of B's matrices each batch takes, numbered in memory order; `None` where the product is zero. Errors where there is none of a
/// number.
pub(super) fn matrices_of(p: &GemmProblem, inputs: &[Option<TensorView>]) -> Result<Vec<Option<usize>>> {
    let batches = 0..p.batch.numel();
    let Some(stack) = &p.pick else { return Ok(batches.map(|i| Some(matrix_of(p, i))).collect()) };
    let numbers = input(inputs, stack.input)?;
    let matrix = |i: usize| match int_at(numbers, i) {
        -1 => Ok(None),
        n => match usize::try_from(n).ok().filter(|&n| n < stack.count) {
            Some(n) => Ok(Some(n)),
            None => Err(Error::BadInput(format!("matrix {n} of {} asked for; -1 is none", stack.count))),
        },
    };
    batches.map(matrix).collect()
}

/// Finishes a batch whose product is zero.
pub(super) fn zero(p: &GemmProblem, batch: usize, finish: &Finish) {
    let mut sums = [0f32; SEGMENT];
    for (row, col) in (0..p.m).flat_map(|row| (0..p.n).step_by(SEGMENT).map(move |col| (row, col))) {
        let sums = &mut sums[..SEGMENT.min(p.n - col)];
        sums.fill(0.0);
        finish.row(batch, row, col, sums);
    }
}
