//! A formula as PTX text, to be pasted into a kernel: the twin of [`super::wgsl`].

mod emit;
mod functions;
mod math;
mod text;

pub use emit::{body, memory_type, register_type};
