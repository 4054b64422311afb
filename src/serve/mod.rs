//! Serving: requests of many callers become batches.

#[cfg(feature = "serve")]
pub mod protocol;
pub mod schedule;
