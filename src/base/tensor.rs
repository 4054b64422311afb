//! Tensors: contiguous, row-major, cheap to clone.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::{AlignedBytes, DType, Element, Shape, TensorView, TensorViewMut};
use crate::error::{Error, Result};

#[derive(Clone)]
enum Storage {
    Owned(Arc<AlignedBytes>),
    /// A slice of a mapped file or of the caller's bytes; may be misaligned for the element type.
    Shared(Bytes),
}

/// Elements that [`Tensor::to_shared`] gave away.
struct Kept(Arc<AlignedBytes>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A contiguous row-major tensor. Clones share the elements.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    storage: Storage,
}

impl Tensor {
    /// Zeros. Errors when the size overflows `usize`.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let bytes = size_bytes(dtype, &shape)?;
        Ok(Tensor { dtype, shape, storage: Storage::Owned(Arc::new(AlignedBytes::zeroed(bytes))) })
    }

    /// Copies `values`. Errors when their number is not the shape's.
    pub fn new<T: Element>(shape: impl Into<Shape>, values: &[T]) -> Result<Self> {
        Self::from_raw(T::DTYPE, shape.into(), bytemuck::cast_slice(values))
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T) -> Self {
        Tensor {
            dtype: T::DTYPE,
            shape: Shape::scalar(),
            storage: Storage::Owned(Arc::new(AlignedBytes::copy_of(bytemuck::bytes_of(&value)))),
        }
    }

    /// A one-dimensional tensor.
    pub fn vector<T: Element>(values: &[T]) -> Self {
        Tensor {
            dtype: T::DTYPE,
            shape: Shape::from([values.len()]),
            storage: Storage::Owned(Arc::new(AlignedBytes::copy_of(bytemuck::cast_slice(values)))),
        }
    }

    /// Copies little-endian element bytes.
    pub fn from_raw(dtype: DType, shape: Shape, bytes: &[u8]) -> Result<Self> {
        check_len(dtype, &shape, bytes.len())?;
        Ok(Tensor { dtype, shape, storage: Storage::Owned(Arc::new(AlignedBytes::copy_of(bytes))) })
    }

    /// Shares little-endian element bytes without copying (weights in a mapped file).
    pub fn from_shared(dtype: DType, shape: Shape, bytes: Bytes) -> Result<Self> {
        check_len(dtype, &shape, bytes.len())?;
        Ok(Tensor { dtype, shape, storage: Storage::Shared(bytes) })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// The elements' bytes, perhaps misaligned.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(b) => b,
            Storage::Shared(b) => b,
        }
    }

    /// The elements' bytes, shared.
    pub fn to_shared(&self) -> Bytes {
        match &self.storage {
            Storage::Owned(b) => Bytes::from_owner(Kept(b.clone())),
            Storage::Shared(b) => b.clone(),
        }
    }

    /// Identity of the elements: equal for clones that share them.
    pub fn address(&self) -> usize {
        self.bytes().as_ptr() as usize
    }

    /// The elements, copied only when they lie misaligned. Errors when they are of another type.
    pub fn values<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if !T::reads(self.dtype) {
            return Err(Error::BadInput(format!("tensor is {}, not {}", self.dtype, T::DTYPE)));
        }
        Ok(match bytemuck::try_cast_slice(self.bytes()) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(self.bytes())),
        })
    }

    /// Integer or bool elements widened to i64; `None` for floats.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        fn widen<T: Element>(t: &Tensor, f: impl Fn(T) -> i64) -> Option<Vec<i64>> {
            Some(t.values::<T>().ok()?.iter().map(|&v| f(v)).collect())
        }
        match self.dtype {
            DType::I64 => widen(self, |v: i64| v),
            DType::I32 => widen(self, |v: i32| v.into()),
            DType::I16 => widen(self, |v: i16| v.into()),
            DType::I8 => widen(self, |v: i8| v.into()),
            DType::U64 => widen(self, |v: u64| v as i64),
            DType::U32 => widen(self, |v: u32| v.into()),
            DType::U16 => widen(self, |v: u16| v.into()),
            DType::U8 | DType::Bool => widen(self, |v: u8| v.into()),
            _ => None,
        }
    }

    /// Elements as f64, whatever their type.
    pub fn to_f64(&self) -> Vec<f64> {
        fn widen<T: Element>(t: &Tensor, f: impl Fn(T) -> f64) -> Vec<f64> {
            t.values::<T>().map(|v| v.iter().map(|&x| f(x)).collect()).unwrap_or_default()
        }
        match self.dtype {
            DType::F32 => widen(self, |v: f32| v.into()),
            DType::F64 => widen(self, |v: f64| v),
            DType::F16 => widen(self, |v: half::f16| v.to_f64()),
            DType::BF16 => widen(self, |v: half::bf16| v.to_f64()),
            DType::U64 => widen(self, |v: u64| v as f64),
            _ => self.to_i64().unwrap_or_default().into_iter().map(|v| v as f64).collect(),
        }
    }

    /// The same elements under another shape of as many elements.
    pub fn reshaped(&self, shape: Shape) -> Result<Self> {
        check_len(self.dtype, &shape, self.bytes().len())?;
        Ok(Tensor { dtype: self.dtype, shape, storage: self.storage.clone() })
    }

    /// The same tensor with its elements on a 64-byte boundary.
    pub fn aligned(&self) -> Self {
        match &self.storage {
            Storage::Shared(b) if !(b.as_ptr() as usize).is_multiple_of(64) => {
                Tensor { storage: Storage::Owned(Arc::new(AlignedBytes::copy_of(b))), ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// The same tensor, with a copy of its elements where they may be a part of more bytes, which it would keep.
    pub fn detached(&self) -> Self {
        match &self.storage {
            Storage::Owned(_) => self.clone(),
            Storage::Shared(b) => Tensor { storage: Storage::Owned(Arc::new(AlignedBytes::copy_of(b))), ..self.clone() },
        }
    }

    /// A borrowed view. The view's typed access needs [`Tensor::aligned`] elements.
    pub fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), self.bytes())
    }

    /// A mutable view; copies the elements first when a clone shares them.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        if let Storage::Shared(b) = &self.storage {
            self.storage = Storage::Owned(Arc::new(AlignedBytes::copy_of(b)));
        }
        let Storage::Owned(bytes) = &mut self.storage else { unreachable!("made owned above") };
        TensorViewMut::new(self.dtype, self.shape.clone(), Arc::make_mut(bytes) as &mut AlignedBytes)
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}

/// Bytes of a tensor, or an error when the number overflows.
pub fn size_bytes(dtype: DType, shape: &Shape) -> Result<usize> {
    shape
        .checked_numel()
        .and_then(|n| n.checked_mul(dtype.size_bytes()))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::BadInput(format!("shape {shape} of {dtype} overflows the address space")))
}

fn check_len(dtype: DType, shape: &Shape, len: usize) -> Result<()> {
    let want = size_bytes(dtype, shape)?;
    if want == len {
        return Ok(());
    }
    Err(Error::BadInput(format!("shape {shape} of {dtype} is {want} bytes, but {len} bytes are given")))
}
