//! A device that has a capacity and counts: nothing is stored in it.

use super::policy::Usage;

/// Start of everything: address 0 means nothing.
const FIRST: u64 = 1 << 40;
/// Regions keep this distance at least, so that none is taken for a neighbour of another.
const GAP: u64 = 2 << 20;

/// A GPU's memory as a driver gives it out.
#[derive(Debug, Clone)]
pub struct Device {
    capacity: u64,
    reserved: u64,
    peak: u64,
    calls: u64,
    next: u64,
}

impl Device {
    /// A device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Device { capacity, reserved: 0, peak: 0, calls: 0, next: FIRST }
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes given out.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// What was taken from it; failed calls count.
    pub fn usage(&self) -> Usage {
        Usage { reserved_bytes: self.reserved, peak_reserved_bytes: self.peak, driver_calls: self.calls }
    }

    /// cudaMalloc: the address of new memory, `None` when there is not so much left.
    pub fn malloc(&mut self, bytes: u64) -> Option<u64> {
        self.calls += 1;
        self.take(bytes).then(|| self.addresses(bytes))
    }

    /// cudaFree of a region of `bytes`.
    pub fn free(&mut self, bytes: u64) {
        self.calls += 1;
        self.reserved -= bytes;
    }

    /// cuMemAddressReserve: addresses with nothing behind them.
    pub fn reserve_addresses(&mut self, bytes: u64) -> u64 {
        self.calls += 1;
        self.addresses(bytes)
    }

    /// cuMemCreate and cuMemMap of each of `handles` handles of `bytes`, then one cuMemSetAccess. All or none.
    pub fn map(&mut self, handles: u64, bytes: u64) -> bool {
        let done = self.take(handles * bytes);
        self.calls += if done { 2 * handles + 1 } else { 1 };
        done
    }

    /// cuMemUnmap and cuMemRelease of each of `handles` handles of `bytes`.
    pub fn unmap(&mut self, handles: u64, bytes: u64) {
        self.calls += 2 * handles;
        self.reserved -= handles * bytes;
    }

    fn take(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.capacity - self.reserved;
        self.reserved += if fits { bytes } else { 0 };
        self.peak = self.peak.max(self.reserved);
        fits
    }

    fn addresses(&mut self, bytes: u64) -> u64 {
        let at = self.next;
        self.next += bytes.next_multiple_of(GAP) + GAP;
        at
    }
}
