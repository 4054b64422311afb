//! What the machine can do.

pub mod amdgpu;
#[cfg(target_arch = "aarch64")]
mod arm;
pub mod cache;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod host;
pub mod info;
#[cfg(feature = "cuda")]
pub mod libcuda;
pub mod nvidia;
pub mod nvml;
pub mod probe;
pub mod roofline;
pub mod topology;
pub mod tuned;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use info::{Caches, Capabilities, DeviceInfo, DeviceKind, Peaks};
