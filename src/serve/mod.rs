//! Serving: requests of many callers become batches.

pub mod engine;
#[cfg(feature = "serve")]
pub mod protocol;
pub mod schedule;
