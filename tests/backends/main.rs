//! One suite over every device of the machine and each of its kernels, chosen by name: random ragged and empty shapes, sums of
//! up to 8192 terms, extreme values. Integers have no tolerance; floats have the bound computed from their own operands.

mod attend;
#[cfg(all(feature = "cuda", feature = "cli"))]
mod calibration;
mod check;
#[cfg(feature = "cuda")]
#[path = "../cuda/mod.rs"]
mod cuda;
mod device;
#[path = "../formulas/mod.rs"]
mod formulas;
mod integer_epilogues;
mod largest;
#[cfg(feature = "cuda")]
mod memory_rates;
mod moves;
mod picked;
#[cfg(feature = "cuda")]
mod planted;
#[cfg(feature = "cuda")]
mod planted_moves;
#[cfg(feature = "cuda")]
mod planted_products;
#[cfg(feature = "cuda")]
mod planted_rows;
mod products;
#[cfg(feature = "cuda")]
#[path = "../ptx_interpreter/mod.rs"]
mod ptx_interpreter;
mod quantized;
mod recurrent;
mod rows;
#[cfg(feature = "wgpu")]
#[path = "../shaders/mod.rs"]
mod shaders;
mod sparse;
