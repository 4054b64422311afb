//! How large the next batch should be: a learned model of latency, of its noise and of arrivals, and a search over the next batches.

mod arrivals;
mod curve;
mod latency;
mod noise;
mod plan;

pub use arrivals::Arrivals;
pub use curve::Curve;
pub use latency::{Latency, Shape};
pub use noise::Noise;
pub use plan::{Choice, Plan, View, margin};
