//! Formulas on the CPU: vector code for chunks of elements.

mod joined;
mod loops;
pub mod math;
mod number;
mod program;

pub use program::{Lane, Program};
