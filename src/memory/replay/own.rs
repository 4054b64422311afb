//! This crate's pool over a virtual device with handles of 2 MiB and more, one stream.

use std::collections::HashMap;
use std::sync::Arc;

use super::policy::{Block, FreeSpace, Policy, Usage};
use crate::memory::provider::software::SoftwareStreams;
use crate::memory::provider::virtual_device::VirtualDevice;
use crate::memory::{self, Arena, Options, Pool, StreamId};

/// Granularity of CUDA's virtual memory management.
const HANDLE_BYTES: u64 = 2 << 20;

/// The pool.
pub struct Own {
    device: Arc<VirtualDevice>,
    /// Blocks go back before the arena they come from.
    live: HashMap<Block, memory::Block>,
    arena: Arena,
    pool: Pool,
}

impl Own {
    /// Over a device of `capacity` bytes.
    pub fn new(capacity: u64, options: Options) -> Self {
        let device = Arc::new(VirtualDevice::new(capacity, Some(HANDLE_BYTES), SoftwareStreams::immediate()));
        let pool = Pool::new(device.clone(), options);
        let arena = pool.arena(pool.account(), StreamId(0));
        Own { device, live: HashMap::new(), arena, pool }
    }

    /// For its figures.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Policy for Own {
    fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let block = self.arena.block(bytes).ok()?;
        let address = block.address();
        self.live.insert(address, block);
        Some(address)
    }

    fn free(&mut self, block: Block) {
        self.live.remove(&block);
    }

    fn usage(&self) -> Usage {
        let (reserved_bytes, peak_reserved_bytes) = self.device.used_bytes();
        Usage { reserved_bytes, peak_reserved_bytes, driver_calls: self.pool.stats().calls.memory() }
    }

    fn free_space(&self) -> FreeSpace {
        let stats = self.pool.stats();
        FreeSpace { total_bytes: stats.free_bytes, largest_bytes: stats.largest_free_bytes }
    }
}
