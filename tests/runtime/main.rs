//! Whole graphs on CUDA without a GPU: where nodes are placed, what is launched, and what is stepped down from.
#![cfg(all(feature = "cuda", feature = "cli"))]

#[cfg(target_os = "linux")]
mod compiled;
#[path = "../cuda/mod.rs"]
mod cuda;
mod draft;
mod failing;
mod largest;
mod library;
mod models;
mod placement;
mod plans;
#[path = "../ptx_interpreter/mod.rs"]
mod ptx_interpreter;
#[cfg(feature = "wgpu")]
mod shaders;
mod sparse;
#[cfg(feature = "wgpu")]
#[path = "../shaders/mod.rs"]
mod texts;
