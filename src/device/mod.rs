//! Devices: where command lists run.

pub mod api;
pub mod check;
pub mod cpu;
pub mod null;

pub use api::Device;
