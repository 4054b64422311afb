//! Figures of a pool.

use super::device::DriverCalls;
use super::ladder::RungCount;

/// A pool's figures at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Stats {
    /// Bytes in blocks that somebody owns, or that work may still use.
    pub live_bytes: u64,
    /// The most it ever was.
    pub peak_live_bytes: u64,
    /// Bytes taken from the device.
    pub reserved_bytes: u64,
    /// The most it ever was.
    pub peak_reserved_bytes: u64,
    /// Reserved bytes in no live block: free blocks and spare handles.
    pub free_bytes: u64,
    /// Bytes that a request of any stream could get in one piece without more from the device: where memory can be remapped, all
    /// that is idle in whole granules.
    pub largest_free_bytes: u64,
    /// Bytes of live blocks beyond what was asked for.
    pub padding_bytes: u64,
    /// Requests that the heap served (those that caches did not).
    pub requests: u64,
    /// Calls of the driver.
    pub calls: DriverCalls,
    /// The ladder.
    pub rungs: Vec<RungCount>,
}

impl Stats {
    /// Share of free memory that is not in the largest piece (0 when nothing is free).
    pub fn fragmentation(&self) -> f64 {
        match self.free_bytes {
            0 => 0.0,
            free => 1.0 - self.largest_free_bytes as f64 / free as f64,
        }
    }
}
