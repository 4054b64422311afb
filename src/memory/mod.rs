//! Memory planning.

pub mod plan;
