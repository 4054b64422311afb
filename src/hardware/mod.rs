//! What the machine can do.

pub mod cpu;
pub mod info;

pub use info::{Caches, Capabilities, DeviceInfo, DeviceKind, Peaks};
