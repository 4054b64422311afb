//! Vulkan, Metal and DX12 devices: a [`super::gpu::Driver`] through wgpu.

mod batch;
mod driver;
mod fault;
mod memory;
mod pipeline;

pub use driver::{Checks, Texts, Wgpu};
