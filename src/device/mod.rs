//! Devices: where command lists run.

pub mod api;
pub mod check;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod null;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use api::Device;
