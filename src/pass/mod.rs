//! Rewrites of a graph that need no shapes.

mod attention;
pub mod channels;
mod fold;
mod fuse;
pub mod half;
mod index;
mod integer;
pub mod layer;
pub mod lora;
mod pattern;
pub mod pipeline;
mod precision;
pub mod residual;
mod share;
mod simplify;
#[cfg(test)]
mod tests;

pub use pipeline::{PassOptions, WeightPrecision, integers, optimize};
