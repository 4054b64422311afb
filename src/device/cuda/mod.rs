//! NVIDIA's driver as the [`super::gpu::Driver`] of CUDA devices, through cudarc's bindings. No call of them is made before
//! [`crate::hardware::libcuda::usable`] has found every symbol.

mod context;
mod driver;
mod event;
mod fault;
mod graph;
mod module;
mod staging;
mod tensor_map;
mod virtual_memory;

pub use driver::Nvidia;
pub use virtual_memory::{Choice, VirtualMemory};
