//! RAPIDS RMM's pool memory resource.
//!
//! From its documentation: requests are rounded to 256 bytes; best fit, the lowest of equal ones; blocks are always split; the pool
//! grows by the larger of the request and its own size, and by half as much again and again, down to the request, when the device refuses. Nothing is returned before the end.

use super::device::Device;
use super::policy::{Block, FreeSpace, Policy, Usage};
use super::ranges::Ranges;

const ALIGN: u64 = 256;

/// The pool without an initial size or a maximum.
pub struct Rmm {
    device: Device,
    ranges: Ranges,
}

impl Rmm {
    /// Over a device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Rmm { device: Device::new(capacity), ranges: Ranges::default() }
    }

    fn grow(&mut self, bytes: u64) -> Option<(u64, u64)> {
        let mut size = bytes.max(self.device.reserved());
        loop {
            if let Some(address) = self.device.malloc(size) {
                return Some(self.ranges.add(address, size));
            }
            if size == bytes {
                return None;
            }
            size = bytes.max((size / 2).next_multiple_of(ALIGN));
        }
    }
}

impl Policy for Rmm {
    fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let bytes = bytes.next_multiple_of(ALIGN);
        let (address, _) = self.ranges.best_fit(bytes).or_else(|| self.grow(bytes))?;
        self.ranges.take(address, bytes);
        Some(address)
    }

    fn free(&mut self, block: Block) {
        self.ranges.give(block);
    }

    fn usage(&self) -> Usage {
        self.device.usage()
    }

    fn free_space(&self) -> FreeSpace {
        self.ranges.free_space()
    }
}
