//! cubecl's memory management in its default configuration (sub-slices).
//!
//! From its documentation and description: pools of pages of device memory / 4, a quarter of that, and so on while the page before is at
//! least 32 MiB; the largest slice of the n-th smaller pool is its page over 2^n. A request goes to the first pool, from small to large, whose slices are large
//! enough; first fit over its pages, neighbours joined within a page; a page that is sliced is never returned, and a request above the largest page is refused.

use std::collections::HashMap;

use super::device::Device;
use super::policy::{Block, FreeSpace, Policy, Usage};
use super::ranges::Ranges;

const ALIGN: u64 = 256;
/// Smaller pages than a quarter of this are not made.
const LEAST_PAGE: u64 = 32 << 20;

struct Pool {
    page_bytes: u64,
    slice_bytes: u64,
    pages: Ranges,
}

/// All pools, from small to large.
pub struct Cubecl {
    device: Device,
    pools: Vec<Pool>,
    live: HashMap<Block, usize>,
}

impl Cubecl {
    /// Over a device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let largest = capacity / 4 / ALIGN * ALIGN;
        let pool = |page_bytes, slice_bytes| Pool { page_bytes, slice_bytes, pages: Ranges::default() };
        let mut pools = vec![pool(largest, largest)];
        let (mut page, mut halvings) = (largest, 1);
        while page >= LEAST_PAGE {
            page = (page / 4).next_multiple_of(ALIGN);
            pools.push(pool(page, page >> halvings));
            halvings += 1;
        }
        pools.reverse();
        Cubecl { device: Device::new(capacity), pools, live: HashMap::new() }
    }
}

impl Policy for Cubecl {
    fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let bytes = bytes.next_multiple_of(ALIGN);
        let at = self.pools.iter().position(|p| p.slice_bytes >= bytes)?;
        let pool = &mut self.pools[at];
        let found = pool.pages.first_fit(bytes);
        let (address, _) = match found {
            Some(found) => found,
            None => pool.pages.add(self.device.malloc(pool.page_bytes)?, pool.page_bytes),
        };
        pool.pages.take(address, bytes);
        self.live.insert(address, at);
        Some(address)
    }

    fn free(&mut self, block: Block) {
        if let Some(at) = self.live.remove(&block) {
            self.pools[at].pages.give(block);
        }
    }

    fn usage(&self) -> Usage {
        self.device.usage()
    }

    fn free_space(&self) -> FreeSpace {
        let all = || self.pools.iter().map(|p| p.pages.free_space());
        FreeSpace {
            total_bytes: all().map(|f| f.total_bytes).sum(),
            largest_bytes: all().map(|f| f.largest_bytes).max().unwrap_or(0),
        }
    }
}
