//! Devices: where command lists run.

pub mod api;
pub mod cpu;
