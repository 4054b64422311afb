//! The batch scheduler: a bounded queue from which it decides what runs next, when, and with what. It has no clock and no threads:
//! whoever drives it says what time it is.

mod bucket;
mod decide;
mod fill;
mod lane;
mod model;
mod options;
mod queue;
mod request;
mod scheduler;
mod share;
mod slots;
mod statistics;

pub use options::{Batching, Policy};
pub use request::{Batch, Key, Rejection, Request, Step};
pub use scheduler::Scheduler;
pub use statistics::Statistics;
