//! Shapes and broadcasting.

use smallvec::SmallVec;

/// The sizes of a tensor's axes, outermost first; empty for a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Shape(SmallVec<[usize; 6]>);

impl Shape {
    /// A scalar's shape.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// Number of elements, or `None` when it overflows.
    pub fn checked_numel(&self) -> Option<usize> {
        if self.0.contains(&0) {
            return Some(0);
        }
        self.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Number of elements. Shapes of tensors that exist never overflow (invariant of [`crate::Tensor`]), but on the way to a zero.
    pub fn numel(&self) -> usize {
        self.0.iter().fold(1, |n, &d| n.wrapping_mul(d))
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Row-major strides in elements; of no meaning where there are none.
    pub fn strides(&self) -> SmallVec<[usize; 6]> {
        let mut strides: SmallVec<[usize; 6]> = SmallVec::from_elem(1, self.rank());
        for i in (1..self.rank()).rev() {
            strides[i - 1] = strides[i].wrapping_mul(self.0[i]);
        }
        strides
    }

    /// The axis that `axis` (negative counts from the end) names, if it exists.
    pub fn axis(&self, axis: i64) -> Option<usize> {
        let rank = self.rank() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        (0..rank).contains(&axis).then_some(axis as usize)
    }

    /// The shape that both broadcast to (numpy's rule), if any.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        (0..rank)
            .map(|i| {
                let dim = |s: &Shape| (i + s.rank()).checked_sub(rank).map_or(1, |j| s[j]);
                match (dim(self), dim(other)) {
                    (a, b) if a == b => Some(a),
                    (1, b) => Some(b),
                    (a, 1) => Some(a),
                    _ => None,
                }
            })
            .collect()
    }

    /// Strides, in elements and one for each axis of `to`, that read `self` as if it had been expanded to `to`
    /// (0 on broadcast axes); `None` when it does not broadcast to exactly `to`.
    pub fn broadcast_strides(&self, to: &Shape) -> Option<SmallVec<[usize; 6]>> {
        let lead = to.rank().checked_sub(self.rank())?;
        let own = self.strides();
        (0..to.rank())
            .map(|i| match i.checked_sub(lead) {
                None => Some(0),
                Some(j) if self[j] == to[i] => Some(if self[j] == 1 { 0 } else { own[j] }),
                Some(j) if self[j] == 1 => Some(0),
                Some(_) => None,
            })
            .collect()
    }

    /// Appends an axis.
    pub fn push(&mut self, dim: usize) {
        self.0.push(dim);
    }

    /// Inserts an axis before `at`.
    pub fn insert(&mut self, at: usize, dim: usize) {
        self.0.insert(at, dim);
    }

    /// Removes an axis.
    pub fn remove(&mut self, at: usize) -> usize {
        self.0.remove(at)
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl std::ops::DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.0
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(iter: I) -> Self {
        Shape(iter.into_iter().collect())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        dims.iter().copied().collect()
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        dims.into_iter().collect()
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.as_slice())
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.0.iter().map(|d| d.to_string()).collect();
        if dims.is_empty() { f.write_str("scalar") } else { f.write_str(&dims.join("x")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let a = Shape::from([4, 1, 3]);
        let b = Shape::from([2, 1]);
        assert_eq!(a.broadcast(&b), Some(Shape::from([4, 2, 3])));
        assert_eq!(Shape::from([2]).broadcast(&Shape::from([3])), None);
        assert_eq!(b.broadcast_strides(&Shape::from([4, 2, 3])).unwrap().as_slice(), &[0, 1, 0]);
        assert!(Shape::from([4, 2]).broadcast_strides(&Shape::from([2])).is_none());
    }

    #[test]
    fn element_counts_that_overflow_are_seen() {
        assert_eq!(Shape::from([usize::MAX, 2]).checked_numel(), None);
        let empty = Shape::from([usize::MAX, 2, 0, usize::MAX]);
        assert_eq!((empty.checked_numel(), empty.numel(), empty.strides().len()), (Some(0), 0, 4));
    }
}
