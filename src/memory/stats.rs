//! Figures of a pool.

use super::core::Core;
use super::device::DriverCalls;
use super::ladder::RungCount;

/// A pool's figures at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

impl Core {
    /// Figures of this moment, with caches emptied and finished work noted.
    pub fn stats(&self) -> Stats {
        self.flush();
        self.with(|inner| {
            inner.settle(&self.device);
            Stats {
                live_bytes: inner.heap.live_bytes(),
                peak_live_bytes: inner.peak_live_bytes,
                reserved_bytes: inner.backing.reserved_bytes(),
                peak_reserved_bytes: inner.peak_reserved_bytes,
                free_bytes: inner.free_bytes(),
                largest_free_bytes: inner.backing.largest_bytes(&inner.heap),
                padding_bytes: inner.padding_bytes,
                requests: inner.requests,
                calls: self.device.calls(),
                rungs: self.ladder.counts(),
            }
        })
    }
}
