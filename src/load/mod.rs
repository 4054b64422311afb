//! Files to graphs.

pub mod onnx;
