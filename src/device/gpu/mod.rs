//! GPUs: kernels rendered at build time as PTX and WGSL, what they are launched with as plain data, and the device that does it
//! through a driver: NVIDIA's, wgpu's, or one that interprets PTX.

mod attend;
mod call;
mod check;
mod conv;
mod device;
mod divide;
mod driver;
mod dry;
mod finish;
mod gemm;
mod kernels;
mod launch;
mod memory;
mod movement;
mod pool;
mod ptx;
mod recording;
mod recurrent;
mod reduce;
mod replay;
mod scalar;
mod select;
mod variant;
mod wgsl;

pub use call::{Call, GpuKernel};
pub use device::GpuDevice;
pub use driver::{Driver, Graph, Resolved, ResolvedMap, Value};
pub use dry::Dry;
pub use finish::Finish;
pub use kernels::{find, kernels};
pub use launch::{Arg, Element, Launch, Module, Pointer, TensorMap};
pub use variant::{TEXTS_HASH, Variant, variants};
pub use wgsl::{Binding, Complete, HEADER_WORDS, Interface, Shader, complete, shaders};
