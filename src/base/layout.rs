//! Strided walks over tensors: what structure operators come down to.

use smallvec::SmallVec;

use super::Shape;

/// Where each element of a shape lies in a buffer: `offset + sum(index[i] * strides[i])`, in elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Sizes of the axes, outermost first.
    pub shape: Shape,
    /// Step of each axis in elements; 0 repeats, negative walks back.
    pub strides: SmallVec<[isize; 6]>,
    /// First element.
    pub offset: usize,
}

impl Layout {
    /// Row-major from the buffer's start.
    pub fn contiguous(shape: Shape) -> Self {
        let strides = shape.strides().iter().map(|&s| s as isize).collect();
        Layout { shape, strides, offset: 0 }
    }

    /// Whether every element lies among `len`.
    pub fn is_inside(&self, len: usize) -> bool {
        let reach = |sign: isize| -> Option<isize> {
            let axes = self.shape.iter().zip(&self.strides).filter(|(_, s)| s.signum() == sign);
            axes.clone().try_fold(self.offset as isize, |at, (&d, &s)| at.checked_add(s.checked_mul(d as isize - 1)?))
        };
        self.shape.numel() == 0 || matches!((reach(-1), reach(1)), (Some(lo), Some(hi)) if lo >= 0 && (hi as usize) < len)
    }

    /// Whether the elements lie row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        let dense = self.shape.strides();
        self.shape.iter().zip(&self.strides).zip(&dense).all(|((&dim, &own), &want)| dim == 1 || own == want as isize)
    }
}
