//! Formulas: each scalar operator written once, and turned into every backend's code.

pub mod bounds;
pub mod cpu;
pub mod formula;
pub mod ptx;
pub mod steps;
pub mod wgsl;

pub use formula::{Binary, Formula, Unary, arg, constant};
pub use steps::{Domain, Steps};
