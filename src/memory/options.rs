//! What a pool may hold and when it acts.

use std::time::Duration;

/// Settings of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The most memory it takes from the device; the device's all where that is less.
    pub limit_bytes: u64,
    /// Reserved memory grows freely up to this many times the peak of live bytes; beyond it only when nothing free can be
    /// used otherwise. At least 1.
    pub slack: f64,
    /// The slack of a process whose shapes do not settle: for all memory that was moved since the start, a 512th of it is
    /// added to what may be reserved, up to this many times the peak.
    pub most_slack: f64,
    /// Free memory that a trim leaves in place, and up to which memory grows freely: the watermark.
    pub keep_bytes: u64,
    /// Handles are at most this part of all memory (and at most 32 granules): larger ones are fewer calls of the driver, but a
    /// live byte holds back all of the handle that it lies in.
    pub handle_part: u64,
    /// Slabs are multiples of this where there is no virtual memory management.
    pub slab_bytes: u64,
    /// How long an allocation waits for work that still uses freed memory before it fails.
    pub wait: Duration,
    /// For how long reserved memory has to have been idle before [`super::Pool::maintain`] gives it back.
    pub idle: Duration,
    /// Whether freed blocks of up to 8 KiB wait in lock-free caches for a request of the same size.
    pub caching: bool,
    /// How many events the timeline keeps; with 0 there is none. With one there are no caches.
    pub timeline: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limit_bytes: u64::MAX,
            slack: 1.02,
            most_slack: 1.1,
            keep_bytes: 4 << 20,
            handle_part: 2048,
            slab_bytes: 2 << 20,
            wait: Duration::from_secs(2),
            idle: Duration::from_secs(10),
            caching: true,
            timeline: 0,
        }
    }
}
