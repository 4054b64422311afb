//! Rewrites of a graph that need no shapes.

pub mod pipeline;

pub use pipeline::{PassOptions, WeightPrecision, optimize};
