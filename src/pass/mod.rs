//! Rewrites of a graph that need no shapes.

pub mod adapted;
mod attention;
pub mod channels;
mod earlier;
mod emit;
mod fold;
mod fuse;
pub mod half;
pub mod heads;
mod index;
mod integer;
pub mod layer;
pub mod lora;
pub mod narrow;
mod pattern;
pub mod pipeline;
mod precision;
pub mod quantize;
pub mod residual;
mod rows;
mod share;
pub mod siblings;
mod simplify;
#[cfg(test)]
mod tests;
pub mod top_product;
mod upgrade;

pub use pipeline::{PassOptions, WeightPrecision, integers, optimize, standard};
pub use upgrade::upgrade;
