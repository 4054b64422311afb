//! What PTX texts are filled with when they are loaded.

mod splice;
mod vector;

pub use splice::splice;
