//! Serving: requests of many callers become batches.

#[cfg(feature = "serve")]
pub mod alert;
#[cfg(feature = "serve")]
pub mod cache;
pub mod engine;
#[cfg(feature = "serve")]
pub mod limit;
pub mod policy;
#[cfg(feature = "serve")]
pub mod protocol;
pub mod registry;
pub mod schedule;
#[cfg(feature = "serve")]
pub mod server;
pub mod simulate;
