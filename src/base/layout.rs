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

    /// Whether the elements lie row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        let dense = self.shape.strides();
        self.shape.iter().zip(&self.strides).zip(&dense).all(|((&dim, &own), &want)| dim == 1 || own == want as isize)
    }
}
