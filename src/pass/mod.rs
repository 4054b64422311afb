//! Rewrites of a graph that need no shapes.

mod attention;
mod fold;
mod fuse;
mod index;
mod integer;
mod pattern;
pub mod pipeline;
mod precision;
mod share;
mod simplify;
#[cfg(test)]
mod tests;

pub use pipeline::{PassOptions, WeightPrecision, integers, optimize};
