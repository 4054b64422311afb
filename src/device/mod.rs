//! Devices: where command lists run.

pub mod api;
pub mod check;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod null;

pub use api::Device;
