//! PyTorch's caching allocator with expandable segments.
//!
//! From the description of c10/cuda/CUDACachingAllocator: each pool (requests of at most 1 MiB, larger ones) has a range of addresses of 9/8 of the
//! device, behind which handles of 2 MiB (small) or 20 MiB (large) are mapped as it grows. Best fit, where a block at the mapped end
//! counts as large as it can become; blocks are always split. When the device is full, all wholly free handles are unmapped.

use std::collections::{BTreeMap, HashMap};

use super::device::Device;
use super::policy::{Block, FreeSpace, Policy, Usage};
use super::ranges::Ranges;
use super::torch::{SMALL, rounded};

const MIB: u64 = 1 << 20;

/// One pool's addresses.
struct Pool {
    handle_bytes: u64,
    mapped: Ranges,
    /// Sizes of the ranges with nothing behind them, by address; whole handles.
    holes: BTreeMap<u64, u64>,
}

impl Pool {
    fn new(handle_bytes: u64) -> Self {
        Pool { handle_bytes, mapped: Ranges::default(), holes: BTreeMap::new() }
    }

    /// The best mapped block: address and size.
    fn mapped_fit(&self, bytes: u64) -> Option<(u64, u64)> {
        let grown = |(address, size): (u64, u64)| size + self.holes.get(&(address + size)).unwrap_or(&0);
        let mut fits = self.mapped.by_size(bytes);
        let mut best = fits.next()?;
        for next in fits {
            if grown(next) >= grown(best) {
                break;
            }
            best = next;
        }
        Some(best)
    }

    /// Where free blocks and holes in a row are long enough.
    fn growable(&self, bytes: u64) -> Option<u64> {
        let start = |(&hole, _): (&u64, &u64)| self.mapped.free_before(hole).map_or(hole, |f| f.0);
        self.holes.iter().map(start).find(|&start| {
            let (mut end, mut found) = (start, 0);
            while let Some(size) = self.mapped.free_at(end).or_else(|| self.holes.get(&end).copied()).filter(|_| found < bytes) {
                (end, found) = (end + size, found + size);
            }
            found >= bytes
        })
    }

    /// Maps holes from `start` on until there is a block of `bytes`: its address and size. `None` when the device is full.
    fn grow(&mut self, device: &mut Device, start: u64, bytes: u64) -> Option<(u64, u64)> {
        let mut block = (start, self.mapped.free_at(start).unwrap_or(0));
        while block.1 < bytes {
            let hole = block.0 + block.1;
            let size = self.holes.get(&hole).copied().unwrap_or(0);
            let handles = (bytes - block.1).min(size).div_ceil(self.handle_bytes);
            if handles == 0 || !device.map(handles, self.handle_bytes) {
                return None;
            }
            let now = handles * self.handle_bytes;
            self.holes.remove(&hole);
            if size > now {
                self.holes.insert(hole + now, size - now);
            }
            block = self.mapped.add(hole, now);
        }
        Some(block)
    }

    /// Unmaps every handle that is wholly free.
    fn unmap_free(&mut self, device: &mut Device) {
        let all: Vec<(u64, u64)> = self.mapped.by_address().collect();
        for (address, bytes) in all {
            let (start, end) =
                (address.next_multiple_of(self.handle_bytes), (address + bytes) / self.handle_bytes * self.handle_bytes);
            if start >= end {
                continue;
            }
            device.unmap((end - start) / self.handle_bytes, self.handle_bytes);
            self.mapped.remove(address);
            if start > address {
                self.mapped.add(address, start - address);
            }
            if address + bytes > end {
                self.mapped.add(end, address + bytes - end);
            }
            self.open(start, end - start);
        }
    }

    /// Adds a hole and joins it with those that touch it.
    fn open(&mut self, address: u64, bytes: u64) {
        let (mut start, mut size) = (address, bytes + self.holes.remove(&(address + bytes)).unwrap_or(0));
        if let Some((&before, &found)) = self.holes.range(..address).next_back().filter(|(a, n)| *a + *n == address) {
            (start, size) = (before, size + found);
        }
        self.holes.insert(start, size);
    }
}

/// The policy.
pub struct Expandable {
    device: Device,
    pools: [Pool; 2],
    live: HashMap<Block, usize>,
}

impl Expandable {
    /// Over a device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Expandable { device: Device::new(capacity), pools: [Pool::new(2 * MIB), Pool::new(20 * MIB)], live: HashMap::new() }
    }

    fn grow(&mut self, bytes: u64, pool: usize) -> Option<(u64, u64)> {
        let (device, pool) = (&mut self.device, &mut self.pools[pool]);
        let start = pool.growable(bytes).unwrap_or_else(|| {
            let handles = (device.capacity() / 8 * 9).max(bytes).div_ceil(pool.handle_bytes);
            // Handles begin at multiples of their size, which the addresses of a device need not be.
            let reserved = device.reserve_addresses((handles + 1) * pool.handle_bytes);
            let start = reserved.next_multiple_of(pool.handle_bytes);
            pool.holes.insert(start, handles * pool.handle_bytes);
            start
        });
        pool.grow(device, start, bytes)
    }
}

impl Policy for Expandable {
    fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let bytes = rounded(bytes);
        let pool = usize::from(bytes > SMALL);
        let found = self.pools[pool].mapped_fit(bytes).or_else(|| self.grow(bytes, pool));
        let (address, _) = found.or_else(|| {
            self.pools.iter_mut().for_each(|p| p.unmap_free(&mut self.device));
            self.grow(bytes, pool)
        })?;
        self.pools[pool].mapped.take(address, bytes);
        self.live.insert(address, pool);
        Some(address)
    }

    fn free(&mut self, block: Block) {
        if let Some(pool) = self.live.remove(&block) {
            self.pools[pool].mapped.give(block);
        }
    }

    fn usage(&self) -> Usage {
        self.device.usage()
    }

    fn free_space(&self) -> FreeSpace {
        let [small, large] = [0, 1].map(|p| self.pools[p].mapped.free_space());
        FreeSpace {
            total_bytes: small.total_bytes + large.total_bytes,
            largest_bytes: small.largest_bytes.max(large.largest_bytes),
        }
    }
}
