//! Vulkan, Metal and DX12 devices: a [`super::gpu::Driver`] through wgpu.

mod batch;
mod compiled;
mod driver;
mod fault;
mod memory;
mod pipeline;

pub use driver::{Checks, Settings, Texts, Wgpu};
