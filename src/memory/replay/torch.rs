//! PyTorch's caching allocator with its default options.
//!
//! From its documentation ("CUDA semantics: memory management") and the description of c10/cuda/CUDACachingAllocator: requests are
//! rounded to 512 bytes; those of at most 1 MiB come from segments of 2 MiB, others from segments of 20 MiB, from 10 MiB on of their own size rounded to
//! 2 MiB. Best fit; a block is split when 512 bytes (small) or more than 1 MiB (large) would be left. When the device is full, every
//! segment that is one free block is returned.

use std::collections::HashMap;

use super::device::Device;
use super::policy::{Block, FreeSpace, Policy, Usage};
use super::ranges::Ranges;

const MIB: u64 = 1 << 20;
/// All requests are multiples of this.
pub(super) const ROUND: u64 = 512;
/// The largest request of the small pool.
pub(super) const SMALL: u64 = MIB;

/// The default policy.
pub struct Torch {
    device: Device,
    /// Small, large.
    pools: [Ranges; 2],
    /// Size and pool of each segment, by address.
    segments: HashMap<u64, (u64, usize)>,
    /// Pool of each live block.
    live: HashMap<Block, usize>,
}

impl Torch {
    /// Over a device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Torch { device: Device::new(capacity), pools: Default::default(), segments: HashMap::new(), live: HashMap::new() }
    }

    fn segment_bytes(bytes: u64) -> u64 {
        match bytes {
            0..=SMALL => 2 * MIB,
            n if n < 10 * MIB => 20 * MIB,
            n => n.next_multiple_of(2 * MIB),
        }
    }

    fn grow(&mut self, bytes: u64, pool: usize) -> Option<(u64, u64)> {
        let segment = Self::segment_bytes(bytes);
        let address = self.device.malloc(segment)?;
        self.segments.insert(address, (segment, pool));
        Some(self.pools[pool].add(address, segment))
    }

    /// Returns every segment that is one free block.
    fn release_unsplit(&mut self) {
        let (pools, device) = (&mut self.pools, &mut self.device);
        self.segments.retain(|&address, &mut (bytes, pool)| {
            let whole = pools[pool].free_at(address) == Some(bytes);
            if whole {
                pools[pool].remove(address);
                device.free(bytes);
            }
            !whole
        });
    }
}

/// The size that a request is rounded to.
pub(super) fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ROUND)
}

impl Policy for Torch {
    fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let bytes = rounded(bytes);
        let pool = usize::from(bytes > SMALL);
        let found = self.pools[pool].best_fit(bytes).or_else(|| self.grow(bytes, pool));
        let (address, size) = found.or_else(|| {
            self.release_unsplit();
            self.grow(bytes, pool)
        })?;
        let left = size - bytes;
        let split = if pool == 0 { left >= ROUND } else { left > MIB };
        self.pools[pool].take(address, if split { bytes } else { size });
        self.live.insert(address, pool);
        Some(address)
    }

    fn free(&mut self, block: Block) {
        if let Some(pool) = self.live.remove(&block) {
            self.pools[pool].give(block);
        }
    }

    fn usage(&self) -> Usage {
        self.device.usage()
    }

    fn free_space(&self) -> FreeSpace {
        let [small, large] = [0, 1].map(|p| self.pools[p].free_space());
        FreeSpace {
            total_bytes: small.total_bytes + large.total_bytes,
            largest_bytes: small.largest_bytes.max(large.largest_bytes),
        }
    }
}
