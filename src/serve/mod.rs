//! Serving: requests of many callers become batches.

pub mod schedule;
