//! Physical memory in slabs, for devices without virtual memory management: taken and given back whole.

use super::device::Device;
use super::heap::{Block, BlockId, Domain, Heap, NONE, State};
use crate::error::Result;

/// A slab taken for small requests is this part of all slabs, so that their number stays logarithmic.
const PART: u64 = 16;

/// All slabs of a device.
pub(super) struct Slabs {
    /// Slabs are multiples of this, unless the device has no room for that.
    pub unit: u64,
    reserved_bytes: u64,
}

impl Slabs {
    pub fn new(unit: u64) -> Self {
        Slabs { unit, reserved_bytes: 0 }
    }

    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// A slab that has `bytes`, as long as `limit` bytes are not exceeded in all; its free block.
    pub fn grow(&mut self, heap: &mut Heap, device: &Device, bytes: u64, limit: u64) -> Result<Option<BlockId>> {
        let room = limit.saturating_sub(self.reserved_bytes).min(device.provider.largest_slab_bytes());
        let part = (self.reserved_bytes / PART).max(bytes).next_multiple_of(self.unit);
        let mut refused = None;
        for size in [part, bytes.next_multiple_of(self.unit), bytes] {
            if size > room {
                continue;
            }
            match device.allocate(size) {
                Ok(address) => {
                    self.reserved_bytes += size;
                    return Ok(Some(heap.add(address, size, State::Free(Domain::READY))));
                }
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// Gives ready slabs back, the largest first, as long as `keep_bytes` stay free.
    pub fn trim(&mut self, heap: &mut Heap, device: &Device, keep_bytes: u64) {
        let mut free = heap.free_bytes();
        for id in heap.free(Domain::READY) {
            let Block { address, bytes, prev, next, .. } = heap.block(id);
            if prev == NONE && next == NONE && free - bytes >= keep_bytes {
                heap.remove(id);
                device.free(address, bytes);
                self.reserved_bytes -= bytes;
                free -= bytes;
            }
        }
    }
}
