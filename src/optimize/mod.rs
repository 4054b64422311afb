//! Making models smaller and faster, and showing what that costs: what runs a model in order to change it.

mod biases;
pub mod blocks;
pub mod budget;
mod candidates;
pub mod channels;
mod exam;
mod faster;
mod halve;
pub mod heads;
pub mod prune;
pub mod quantize;
mod ranges;
mod rounding;
mod samples;
mod stream;
mod taps;
mod turns;
mod work;

pub use biases::Biases;
pub use candidates::{Best, Tried, best_of};
pub use exam::{Exam, Labels};
pub use faster::{Reversion, faster};
pub use halve::{Within, halve_within};
pub use quantize::{Calibrated, QuantizeOptions, quantize};
pub use ranges::{Size, Smoothing};
pub use rounding::Rounding;
pub use samples::{Sample, Samples};
pub use taps::{Taps, run};
pub use turns::by_turns;
pub use work::multiplications;
