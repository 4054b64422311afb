//! Broadcast operands as rows: the axes that can be walked together are one.

use smallvec::SmallVec;

use crate::base::Shape;

/// Rows of equal length over an output shape; operand `i` of row `r` starts at `start(i, r)` and its elements follow each
/// other, or are all the same one.
pub struct Rows {
    /// Sizes of the outer axes.
    outer: SmallVec<[usize; 6]>,
    /// Elements of a row.
    pub len: usize,
    /// Number of rows.
    pub count: usize,
    strides: Vec<SmallVec<[usize; 6]>>,
    /// Per operand: whether a row repeats one element.
    pub splat: Vec<bool>,
}

impl Rows {
    /// Rows of `out` with operands of the given shapes; `None` when one does not broadcast to `out`.
    pub fn new(out: &Shape, operands: &[&Shape]) -> Option<Rows> {
        let all: Vec<_> = operands.iter().map(|s| s.broadcast_strides(out)).collect::<Option<_>>()?;
        let mut dims: SmallVec<[usize; 6]> = SmallVec::new();
        let mut strides: Vec<SmallVec<[usize; 6]>> = vec![SmallVec::new(); operands.len()];
        for axis in 0..out.rank() {
            if out[axis] == 1 {
                continue;
            }
            let joins =
                dims.last().is_some() && all.iter().zip(&strides).all(|(s, kept)| kept[kept.len() - 1] == s[axis] * out[axis]);
            if joins {
                let last = dims.len() - 1;
                dims[last] *= out[axis];
                for (s, kept) in all.iter().zip(&mut strides) {
                    kept[last] = s[axis];
                }
            } else {
                dims.push(out[axis]);
                for (s, kept) in all.iter().zip(&mut strides) {
                    kept.push(s[axis]);
                }
            }
        }
        let len = dims.pop().unwrap_or(1);
        let splat = strides.iter_mut().map(|s| s.pop().unwrap_or(0) == 0).collect();
        let count = dims.iter().product();
        Some(Rows { outer: dims, len, count, strides, splat })
    }

    /// Index of the element of operand `i` at which row `r` starts.
    pub fn start(&self, i: usize, mut r: usize) -> usize {
        let Some((outermost, strides)) = self.strides[i].split_first() else { return 0 };
        let mut at = 0;
        for (dim, stride) in self.outer[1..].iter().zip(strides).rev() {
            at += (r % dim) * stride;
            r /= dim;
        }
        at + r * outermost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_join_when_every_operand_allows_it() {
        let out = Shape::from([2, 3, 4, 5]);
        let rows = Rows::new(&out, &[&out, &Shape::from([3, 1, 1]), &Shape::scalar()]).unwrap();
        assert_eq!((rows.count, rows.len), (6, 20));
        assert_eq!(rows.splat, [false, true, true]);
        assert_eq!((rows.start(0, 4), rows.start(1, 4), rows.start(2, 4)), (80, 1, 0));
    }
}
