//! The engine: many callers share models in batches. See `docs/serving.md`.

mod axes;
mod batch;
mod core;
mod desk;
mod door;
mod entry;
mod join;
mod model;
mod quantiles;
mod request;
mod runner;
mod runs;
mod shared;
mod slot;
mod statistics;
mod sync;
mod ticket;

pub use axes::{Axis, BatchAxis, Joining, Padding};
pub use batch::{Reply, Trace};
pub use core::{Engine, Submit};
pub use model::Serving;
pub(in crate::serve) use quantiles::Histogram;
pub use quantiles::Quantiles;
pub use runner::Runner;
pub use statistics::{ModelStatistics, Stages, Statistics};
pub use ticket::Ticket;
