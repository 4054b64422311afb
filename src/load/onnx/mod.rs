//! ONNX files.

mod attribute;
mod build;
mod external;
mod reader;
mod sort;
mod tensor;

pub(super) use reader::map;
pub use reader::{Loaded, from_bytes, open};

#[cfg(test)]
mod tests;
