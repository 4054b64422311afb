//! Limits: requests by time of tenants and models, and requests at once.

mod concurrency;
mod found;
mod meter;
mod rate;

pub use concurrency::{Busy, Concurrency, ConcurrencyStats, Permit};
pub use found::Limit;
pub use meter::{Counts, Rate};
pub use rate::{Limited, Limits, RateLimits, RateStats, Throttled};
