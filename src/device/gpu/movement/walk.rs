//! Axes that a kernel walks along, with the steps it takes in each of several counts: elements read, written, or coordinates.

use super::super::device::failed;
use super::super::divide::magic;
use super::super::launch::{Arg, Launch};
use super::super::variant::Variant;
use crate::error::Result;

/// Axes at most: what kernels/lib/walk.j2 unrolls.
pub const AXES: usize = 8;
/// Bytes of the widest element that a thread moves.
const WIDEST: usize = 16;

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis<const N: usize> {
    /// Coordinates.
    pub size: usize,
    /// From one to the next.
    pub steps: [i64; N],
    /// Whether it may be taken together with its neighbours.
    pub joins: bool,
}

/// Axes, outermost first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Walk<const N: usize> {
    /// Of more than one element, or that join nothing.
    pub axes: Vec<Axis<N>>,
}

impl<const N: usize> Walk<N> {
    /// Axes of these sizes and steps, outermost first; those that all steps run through evenly are taken together.
    pub fn new(axes: impl IntoIterator<Item = (usize, [i64; N])>) -> Self {
        let mut walk = Walk { axes: Vec::new() };
        axes.into_iter().for_each(|(size, steps)| walk.push(Axis { size, steps, joins: true }));
        walk
    }

    /// Appends an axis inside of the others.
    pub fn push(&mut self, axis: Axis<N>) {
        if axis.joins && axis.size == 1 {
            return;
        }
        let even = |outer: &Axis<N>| (0..N).all(|i| outer.steps[i] == axis.steps[i] * axis.size as i64);
        match self.axes.last_mut() {
            Some(outer) if outer.joins && axis.joins && even(outer) => *outer = Axis { size: outer.size * axis.size, ..axis },
            _ => self.axes.push(axis),
        }
    }

    /// Coordinates altogether.
    pub fn elements(&self) -> usize {
        self.axes.iter().map(|a| a.size).product()
    }

    /// How many neighbouring elements of `bytes` bytes may be moved as one: steps in the first `counts` are of elements, those in the
    /// others must not be taken along the innermost axis; so are the `others`, which must be multiples.
    pub fn width(&self, bytes: usize, counts: usize, others: &[i64]) -> usize {
        let Some((inner, outer)) = self.axes.split_last() else { return 1 };
        let runs = inner.joins && inner.steps.iter().enumerate().all(|(i, &s)| s == i64::from(i < counts));
        widest(bytes, |w| {
            let divides = |v: i64| v % w as i64 == 0;
            let even = outer.iter().all(|a| a.steps[..counts].iter().all(|&s| divides(s)));
            runs && even && divides(inner.size as i64) && others.iter().all(|&v| divides(v))
        })
    }

    /// In elements as wide as `width` says they may be.
    pub fn widened(mut self, width: usize, counts: usize) -> Self {
        let last = self.axes.len().saturating_sub(1);
        for (i, axis) in self.axes.iter_mut().enumerate().filter(|_| width > 1) {
            if i == last {
                axis.size /= width;
            } else {
                axis.steps[..counts].iter_mut().for_each(|s| *s /= width as i64);
            }
        }
        self
    }

    /// The kernel's parameter `rank`.
    pub fn rank(&self) -> Arg {
        Arg::U32(self.axes.len() as u32)
    }

    /// The kernel's parameter `axes`. Errors when there are too many.
    pub fn argument(&self) -> Result<Arg> {
        let left = AXES.checked_sub(self.axes.len()).ok_or_else(|| failed("a movement along more than 8 axes"))?;
        let mut parts = Vec::with_capacity(AXES * (3 + N));
        for i in 0..AXES {
            let axis = i.checked_sub(left).and_then(|i| self.axes.get(i));
            let size = axis.map_or(1, |a| a.size as u32);
            let (multiplier, shift) = magic(size);
            parts.extend([size, multiplier, shift].map(Arg::U32));
            // Steps back wrap around: sums of them do not.
            parts.extend((0..N).map(|n| Arg::U32(axis.map_or(0, |a| a.steps[n] as u32))));
        }
        Ok(Arg::Block(parts))
    }
}

/// The most elements of `bytes` bytes that a thread can move as one and that fit; 1 always do.
pub fn widest(bytes: usize, fits: impl Fn(usize) -> bool) -> usize {
    [16, 8, 4, 2].into_iter().find(|&w| w * bytes <= WIDEST && fits(w)).unwrap_or(1)
}

/// A launch of the variant of this name with a thread, or as many elements as the row's `each` says, for each of `elements`.
pub fn over(name: &str, elements: usize, args: Vec<Arg>) -> Launch {
    let variant = Variant::named(name);
    let each = variant.numbers.iter().find(|n| n.0 == "each").map_or(1, |n| n.1);
    Launch::new(variant, [elements.div_ceil((variant.threads * each) as usize) as u32, 1, 1], args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_join_and_widen_where_all_steps_allow_it() {
        let walk = Walk::new([(2, [60, 0]), (3, [20, 0]), (1, [7, 7]), (4, [5, 1]), (4, [1, 0])]);
        let sizes: Vec<usize> = walk.axes.iter().map(|a| a.size).collect();
        assert_eq!(sizes, [6, 4, 4]);
        assert_eq!(walk.elements(), 96);
        assert_eq!(walk.width(4, 1, &[]), 1, "a step of 5 is no multiple");
        let walk = Walk::new([(3, [16, 0]), (2, [8, 1]), (8, [1, 0])]);
        assert_eq!((walk.width(2, 1, &[]), walk.width(2, 1, &[12]), walk.width(4, 1, &[])), (8, 4, 4));
        let wide = walk.widened(4, 1);
        assert_eq!(wide.axes.iter().map(|a| (a.size, a.steps)).collect::<Vec<_>>(), [(3, [4, 0]), (2, [2, 1]), (2, [1, 0])]);
    }
}
