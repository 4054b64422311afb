//! Writes graphs as files.

pub mod onnx;
