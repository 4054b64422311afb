//! Making models smaller and faster, and showing what that costs: what runs a model in order to change it.

mod samples;
mod taps;

pub use samples::{Sample, Samples};
pub use taps::Taps;
