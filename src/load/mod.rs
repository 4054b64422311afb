//! Files to graphs.

pub mod onnx;
pub mod safetensors;
