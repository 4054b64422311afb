//! The cache of results: keys, two levels, single flight.

mod answer;
mod breaker;
mod envelope;
mod first;
mod flight;
mod key;
mod options;
pub mod prometheus;
mod queue;

mod results;
mod second;
mod stats;

pub use answer::Answer;
pub use breaker::{Breaker, BreakerState};
pub use envelope::Envelope;
pub use flight::{Failure, Outcome, Waiter};
pub use key::{Digest, Identity, Scope};
pub use options::{Eviction, Options, Second};

pub use results::{Begin, Cache, Fetched, Lead};
pub use stats::{SecondStats, Stats};
