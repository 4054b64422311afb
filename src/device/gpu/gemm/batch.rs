//! The batch axes of a product as kernels see them.

use super::super::divide::magic;
use super::super::finish::{merge, merged_strides};
use super::super::launch::Arg;
use crate::base::Shape;

/// Axes at most, after neighbours that every operand runs through evenly are taken together.
pub const AXES: usize = 4;
/// Operands at most.
pub const OPERANDS: usize = 4;

/// Sizes of the batch axes and each operand's step along them: the kernels' parameter `batch`, which kernels/lib/batch.j2 reads.
pub struct Batch {
    sizes: Vec<u32>,
    steps: Vec<Vec<u32>>,
}

impl Batch {
    /// Axes `shape`, and for each operand its step along each, in whatever the kernel counts in. `None` when more than
    /// [`AXES`] axes are left.
    pub fn new(shape: &Shape, operands: &[Vec<usize>]) -> Option<Batch> {
        let (sizes, _) = merge(shape, operands);
        let steps = operands.iter().map(|s| merged_strides(shape, operands, s)).collect();
        (sizes.len() <= AXES && operands.len() <= OPERANDS).then_some(Batch { sizes, steps })
    }

    /// How many matrices.
    pub fn count(&self) -> u32 {
        self.sizes.iter().product()
    }

    /// The parameter: size, multiplier and shift of each axis, outermost first, then each operand's steps.
    pub fn argument(&self) -> Arg {
        // Unused axes come first, so that the coordinates that count are the innermost.
        let unused = AXES - self.sizes.len();
        let at = |values: &[u32], axis: usize, other| if axis < unused { other } else { values[axis - unused] };
        let mut parts = Vec::new();
        for axis in 0..AXES {
            let size = at(&self.sizes, axis, 1);
            let (magic, shift) = magic(size);
            parts.extend([size, magic, shift].map(Arg::U32));
        }
        for operand in 0..OPERANDS {
            let step = |axis| self.steps.get(operand).map_or(0, |s| at(s, axis, 0));
            parts.extend((0..AXES).map(|axis| Arg::U32(step(axis))));
        }
        Arg::Block(parts)
    }
}

/// The axes along which any of the operands moves, the others as 1, and the steps of a tensor that holds `size` elements for each
/// place of them, without gaps.
pub fn own(shape: &Shape, operands: &[&[usize]], size: usize) -> (Shape, Vec<usize>) {
    let moves = |axis: usize| operands.iter().any(|s| s[axis] != 0);
    let own: Shape = (0..shape.rank()).map(|a| if moves(a) { shape[a] } else { 1 }).collect();
    let steps = own.strides().iter().enumerate().map(|(a, s)| if moves(a) { s * size } else { 0 }).collect();
    (own, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_taken_together_where_all_run_evenly() {
        let shape = Shape::from([2, 3, 4]);
        let batch = Batch::new(&shape, &[vec![120, 40, 10], vec![0, 0, 5]]).unwrap();
        assert_eq!((batch.sizes, batch.steps), (vec![6, 4], vec![vec![40, 10], vec![0, 5]]));
        let (own, steps) = own(&shape, &[&[0, 7, 0], &[0, 0, 9]], 10);
        assert_eq!((own, steps), (Shape::from([1, 3, 4]), vec![0, 40, 10]));
        assert!(Batch::new(&Shape::from([2; 9]), &[(0..9).map(|i| i % 2).collect()]).is_none());
    }
}
