//! Element types, shapes, tensors and their views.

mod bytes;
mod dot;
pub mod dtype;
pub mod exposition;
pub mod layout;
mod lock;
mod mapped;
mod new_file;
pub mod quant;
pub mod random;
pub mod round;
pub mod shape;
mod size;
pub mod sparse;
pub mod tensor;
pub mod view;
pub mod xorshift;

pub use bytes::AlignedBytes;
pub use dot::dot;
pub use dtype::{DType, Element};
pub use lock::lock;
pub use mapped::Mapped;
pub use new_file::NewFile;
pub use shape::Shape;
pub use size::size_text;
pub use tensor::Tensor;
pub use view::{TensorView, TensorViewMut};
