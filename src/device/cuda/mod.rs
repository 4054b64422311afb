//! NVIDIA GPUs: PTX kernels rendered at build time, what they are launched with as plain data, and the device that does it through
//! a driver, which may be NVIDIA's or one that interprets PTX.

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
mod movement;
mod nvidia;
mod pool;
mod recording;
mod recurrent;
mod reduce;
mod replay;
mod scalar;
mod select;
mod splice;
mod variant;
mod vector;

pub use call::{Call, CudaKernel};
pub use device::CudaDevice;
pub use driver::{Driver, Graph, Resolved, ResolvedMap, Value};
pub use dry::Dry;
pub use finish::Finish;
pub use kernels::{find, kernels};
pub use launch::{Arg, Element, Launch, Module, Pointer, TensorMap};
pub use nvidia::Nvidia;
pub use variant::{Variant, variants};
