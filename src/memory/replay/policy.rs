//! What an allocator under test does.

/// A block that an allocator gave out: its address.
pub type Block = u64;

/// What an allocator has taken from its device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes taken now, used or not.
    pub reserved_bytes: u64,
    /// The most that were ever taken at once.
    pub peak_reserved_bytes: u64,
    /// Calls into the driver so far.
    pub driver_calls: u64,
}

/// Free bytes within what an allocator has reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FreeSpace {
    /// All of them.
    pub total_bytes: u64,
    /// The largest request that they could serve without the driver.
    pub largest_bytes: u64,
}

impl FreeSpace {
    /// External fragmentation, 0 (one free range) to nearly 1; 0 when nothing is free.
    pub fn fragmentation(&self) -> f64 {
        if self.total_bytes == 0 { 0.0 } else { 1.0 - self.largest_bytes as f64 / self.total_bytes as f64 }
    }
}

/// An allocator over a virtual device of its own, on one stream: what is freed may be used again at once.
pub trait Policy {
    /// A block of `bytes` or more; `bytes` is not 0. `None` when the device is full and all that the allocator does about it did not help.
    fn alloc(&mut self, bytes: u64) -> Option<Block>;
    /// Takes a live block back.
    fn free(&mut self, block: Block);
    /// What is and was taken from the device.
    fn usage(&self) -> Usage;
    /// What is free now. May take time in proportion to the number of free ranges.
    fn free_space(&self) -> FreeSpace;
}
