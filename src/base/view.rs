//! Borrowed tensors.

use super::{DType, Element, Shape};

/// A contiguous row-major tensor that somebody else owns.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Shape,
    /// The elements' bytes.
    pub bytes: &'a [u8],
}

/// A contiguous row-major tensor to write, that somebody else owns.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Shape,
    /// The elements' bytes.
    pub bytes: &'a mut [u8],
}

impl<'a> TensorView<'a> {
    /// `bytes` seen as a tensor.
    pub fn new(dtype: DType, shape: Shape, bytes: &'a [u8]) -> Self {
        TensorView { dtype, shape, bytes }
    }

    /// Values seen as a tensor. The number of values must be the shape's; [`crate::Session::run`] checks it.
    pub fn of<T: Element>(shape: impl Into<Shape>, values: &'a [T]) -> Self {
        TensorView { dtype: T::DTYPE, shape: shape.into(), bytes: bytemuck::cast_slice(values) }
    }

    /// The elements. `None` when they are of another type or lie misaligned.
    pub fn try_slice<T: Element>(&self) -> Option<&'a [T]> {
        if T::reads(self.dtype) { bytemuck::try_cast_slice(self.bytes).ok() } else { None }
    }

    /// The elements, for kernels: plans bind only aligned buffers of the planned type.
    ///
    /// # Panics
    /// When the elements are of another type or misaligned, which is a planner's bug.
    pub fn slice<T: Element>(&self) -> &'a [T] {
        assert!(T::reads(self.dtype), "view is {}, read as {}", self.dtype, T::DTYPE);
        bytemuck::cast_slice(self.bytes)
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// An owned copy.
    pub fn to_tensor(&self) -> crate::Result<super::Tensor> {
        super::Tensor::from_raw(self.dtype, self.shape.clone(), self.bytes)
    }
}

impl<'a> TensorViewMut<'a> {
    /// `bytes` seen as a tensor to write.
    pub fn new(dtype: DType, shape: Shape, bytes: &'a mut [u8]) -> Self {
        TensorViewMut { dtype, shape, bytes }
    }

    /// The elements, for kernels.
    ///
    /// # Panics
    /// When the elements are of another type or misaligned, which is a planner's bug.
    pub fn slice<T: Element>(&mut self) -> &mut [T] {
        assert!(T::reads(self.dtype), "view is {}, written as {}", self.dtype, T::DTYPE);
        bytemuck::cast_slice_mut(self.bytes)
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// The same, read only.
    pub fn as_view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: self.shape.clone(), bytes: self.bytes }
    }
}
