//! ONNX files.

mod file;
mod message;
mod names;
mod opset;

pub use file::{to_bytes, write, write_external};

#[cfg(test)]
mod tests;
