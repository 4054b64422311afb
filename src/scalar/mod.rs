//! Formulas: each scalar operator written once, and turned into every backend's code.

pub mod formula;

pub use formula::{Formula, arg, constant};
