//! Kinds of problem for which the fastest kernel is measured once.

use std::fmt::Write;

use crate::graph::Problem;
use crate::graph::problem::{Family, GemmProblem};
use crate::hardware::cache::hash;

/// The same for problems of which the same kernel is fastest: of matrix products, rows count by powers of two and the other extents by
/// eighths of one; all else must be equal. `None` for families of which every device has one kernel.
pub fn key(problem: &Problem) -> Option<String> {
    let mut text = format!("{:?} ", problem.family()).to_lowercase();
    match problem {
        Problem::Gemm(p) if p.contraction.is_none() && p.pick.is_none() && p.top.is_none() => gemm(&mut text, p),
        _ if matches!(problem.family(), Family::Scalar | Family::Move | Family::Select) => return None,
        other => write!(text, "{:016x}", hash(format!("{other:?}").as_bytes())).ok()?,
    }
    Some(text)
}

fn gemm(text: &mut String, p: &GemmProblem) {
    let rows = p.m.next_power_of_two();
    let (n, k) = (eighths(p.n), eighths(p.k));
    let side = |lies: &crate::graph::problem::gemm::Matrix| if lies.col == 1 { "rows" } else { "columns" };
    // What does not depend on the extents: types, quantisation, epilogue.
    let kind = (
        &p.quant,
        p.two_of_four,
        &p.epilogue.as_ref().map(|e| (&e.formula, e.operands.iter().map(|t| t.dtype).collect::<Vec<_>>())),
        p.out,
    );
    let batch = p.batch.numel().next_power_of_two();
    let types = format!("{:?}x{:?} {}x{}", p.a.dtype, p.b_as, side(&p.a), side(&p.b)).to_lowercase();
    *text += &format!("{batch}x{rows}x{n}x{k} {types} {:016x}", hash(format!("{kind:?}").as_bytes()));
}

/// Rounded up to an eighth of the power of two below.
fn eighths(n: usize) -> usize {
    n.next_multiple_of((1 << n.max(8).ilog2()) / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_near_each_other_are_one_kind() {
        let all: Vec<usize> = [1, 7, 8, 9, 15, 16, 17, 768, 770, 832, 833].into_iter().map(eighths).collect();
        assert_eq!(all, [1, 7, 8, 9, 15, 16, 18, 768, 832, 832, 896]);
    }
}
