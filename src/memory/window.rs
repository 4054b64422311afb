//! Windows: second addresses of handles. A handle may be mapped at several addresses at once, and that costs no memory (virtual
//! aliasing, CUDA C++ Programming Guide, "Virtual Memory Management"), so idle handles that lie apart are one range behind a window. It
//! stays mapped when its block is freed: the next request that its idle handles have room for needs no call of the driver.
//!
//! What is in use is the heap's to say, by first addresses alone: a block behind a window is ranges of its handles there.

use std::collections::HashMap;

use super::device::Device;
use super::granule::{Granule, Granules};
use super::heap::{BlockId, Domain, Heap, State};
use super::idle::{End, Idle};
use super::provider::{Handle, StreamId};
use crate::error::Result;

/// Windows that are kept; the one that nobody wanted for longest makes room for another.
const MOST: usize = 128;
/// Addresses are reserved in pieces of this many times the device's memory.
const ADDRESSES: u64 = 8;
/// A window has this many times the addresses that it needs at first, since it grows at its end.
const ROOM: u64 = 2;

/// Handles mapped one behind the other, none of them twice.
struct Window {
    /// Its range in `Windows::addresses`.
    id: BlockId,
    address: u64,
    bytes: u64,
    room_bytes: u64,
    handles: Vec<Granule>,
    /// Blocks behind it.
    users: u32,
    /// Marks behind the work of freed blocks that used its addresses.
    uses: Vec<(StreamId, u64)>,
    /// When it was last wanted.
    wanted: u64,
    /// Whether it may be used: not once the device refused to unmap a part that it gave no access to.
    is_open: bool,
}

/// Where a block behind a window lies.
struct Held {
    address: u64,
    window: BlockId,
    /// Live ranges of the heap besides the first, which is the block's own.
    others: Vec<BlockId>,
}

/// All windows of a device.
#[derive(Default)]
pub(super) struct Windows {
    /// Ranges of windows, and holes between them.
    addresses: Heap,
    regions: Vec<(u64, u64)>,
    kept: Vec<Window>,
    held: HashMap<BlockId, Held>,
    clock: u64,
}

impl Windows {
    /// The address of a block behind a window.
    pub fn address(&self, id: BlockId) -> Option<u64> {
        self.held.get(&id).map(|held| held.address)
    }

    /// Blocks behind windows, and the ranges of each besides its own.
    pub fn held(&self) -> impl Iterator<Item = (BlockId, &[BlockId])> {
        self.held.iter().map(|(&id, held)| (id, held.others.as_slice()))
    }

    /// Forgets a block that is freed, behind a mark where work may still use it: its ranges besides its own.
    pub fn leave(&mut self, id: BlockId, mark: Option<(StreamId, u64)>) -> Vec<BlockId> {
        let Some(held) = self.held.remove(&id) else { return Vec::new() };
        if let Some(window) = self.kept.iter_mut().find(|w| w.id == held.window) {
            window.users -= 1;
            window.uses.extend(mark);
        }
        held.others
    }

    /// The smallest window behind which `bytes` are idle in one piece, else the one that lacks the fewest at its end: its index, the
    /// first of the handles, and what is missing.
    fn find(&self, idle: &Idle, unit: u64, bytes: u64) -> Option<(usize, usize, u64)> {
        let open = self.kept.iter().enumerate().filter(|(_, w)| w.is_open);
        let found = open.filter_map(|(i, window)| {
            let (first, missing) = idle.run(&window.handles, bytes);
            let has_room = missing < bytes && window.bytes + missing + unit <= window.room_bytes;
            (missing == 0 || has_room).then_some((missing, window.bytes, i, first))
        });
        found.min().map(|(missing, _, i, first)| (i, first, missing))
    }

    /// Whether some window has `bytes`, in use or not.
    fn is_any_as_large(&self, bytes: u64) -> bool {
        self.kept.iter().any(|w| w.bytes >= bytes)
    }

    /// Unmaps the windows that a handle lies behind; whether none is left: work may still use one.
    pub fn close_over(&mut self, device: &Device, handle: Handle) -> Result<bool> {
        let over = |w: &Window| w.handles.iter().any(|g| g.handle == handle);
        while let Some(i) = self.kept.iter().position(over) {
            if !self.close(device, i)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Unmaps a window that no work uses; whether it did.
    fn close(&mut self, device: &Device, index: usize) -> Result<bool> {
        let window = &mut self.kept[index];
        window.uses.retain(|&(stream, seq)| device.completed(stream) < seq);
        if window.users > 0 || !window.uses.is_empty() {
            return Ok(false);
        }
        if window.bytes > 0 {
            device.unmap(window.address, window.bytes)?;
        }
        let window = self.kept.swap_remove(index);
        self.addresses.release(window.id, State::Hole, 0);
        Ok(true)
    }

    /// Unmaps everything; nothing uses it any more.
    pub fn close_all(&mut self, device: &Device) {
        for window in self.kept.drain(..) {
            // Nobody is left to tell.
            let _ = device.unmap(window.address, window.bytes);
        }
        for (base, bytes) in self.regions.drain(..) {
            device.unreserve(base, bytes);
        }
    }

    /// Addresses of `bytes`.
    fn range(&mut self, device: &Device, unit: u64, bytes: u64) -> Option<BlockId> {
        let hole = self.addresses.holes().find(|&id| self.addresses.block(id).bytes >= bytes);
        let id = match hole {
            Some(id) => id,
            None => {
                let size = device.provider.capacity_bytes().max(bytes).saturating_mul(ADDRESSES) / unit * unit;
                let base = device.reserve(size).ok()?;
                self.regions.push((base, size));
                self.addresses.add(base, size, State::Hole)
            }
        };
        Some(self.addresses.carve(id, 0, bytes))
    }

    /// A window of these handles; its index.
    fn open(&mut self, device: &Device, unit: u64, handles: Vec<Granule>) -> Option<usize> {
        while self.kept.len() >= MOST {
            let unused = (0..self.kept.len()).filter(|&i| self.kept[i].users == 0);
            let oldest = unused.min_by_key(|&i| self.kept[i].wanted)?;
            self.close(device, oldest).ok().filter(|closed| *closed)?;
        }
        let room_bytes = handles.iter().map(|g| u64::from(g.units) * unit).sum::<u64>() * ROOM;
        let id = self.range(device, unit, room_bytes)?;
        let address = self.addresses.block(id).address;
        let (bytes, users, wanted, uses) = Default::default();
        self.kept.push(Window { id, address, bytes, room_bytes, handles: Vec::new(), users, uses, wanted, is_open: true });
        let index = self.kept.len() - 1;
        if self.extend(device, unit, index, handles) {
            return Some(index);
        }
        let _ = self.close(device, index);
        None
    }

    /// Maps handles behind the last ones of a window. On an error none of them is there, or it is used no more.
    fn extend(&mut self, device: &Device, unit: u64, index: usize, handles: Vec<Granule>) -> bool {
        let window = &mut self.kept[index];
        let (start, count) = (window.bytes, window.handles.len());
        let mapped = handles.into_iter().all(|granule| {
            let bytes = u64::from(granule.units) * unit;
            let done = device.map(window.address + window.bytes, bytes, granule.handle).is_ok();
            if done {
                window.bytes += bytes;
                window.handles.push(granule);
            }
            done
        });
        let (at, bytes) = (window.address + start, window.bytes - start);
        if mapped && device.set_access(at, bytes).is_ok() {
            return true;
        }
        if bytes == 0 || device.unmap(at, bytes).is_ok() {
            window.handles.truncate(count);
            window.bytes = start;
        } else {
            window.is_open = false;
        }
        false
    }

    /// Where `bytes` are idle in one piece behind a window, that is extended or opened for it if `make`: its index and the first handle.
    fn place(&mut self, device: &Device, idle: &Idle, unit: u64, bytes: u64, make: bool) -> Option<(usize, usize)> {
        let found = self.find(idle, unit, bytes);
        match found {
            Some((index, first, 0)) => return Some((index, first)),
            Some((index, first, missing)) if make => {
                let more = idle.pick(missing, &self.kept[index].handles, false);
                if more.is_some_and(|more| self.extend(device, unit, index, more)) {
                    return Some((index, first));
                }
            }
            _ if !make => return None,
            _ => {}
        }
        let handles = idle.pick(bytes, &[], false).or_else(|| idle.pick(bytes, &[], true))?;
        Some((self.open(device, unit, handles)?, 0))
    }

    /// Makes the first addresses of `bytes` behind a window a block in use; it, and the mark that it follows.
    fn lend(&mut self, heap: &mut Heap, idle: &Idle, (index, first): (usize, usize), bytes: u64) -> (BlockId, u64) {
        self.clock += 1;
        let window = &mut self.kept[index];
        let before: u64 = window.handles[..first].iter().map(|g| idle.size(g)).sum();
        let (mut address, mut missing, mut pieces) = (window.address + before, bytes, Vec::new());
        for granule in &window.handles[first..] {
            let Some(place) = idle.place(granule).filter(|_| missing > 0) else { break };
            let skipped = if pieces.is_empty() { idle.size(granule) - place.back.bytes } else { 0 };
            let End { bytes, id } = if pieces.is_empty() { place.back } else { place.front };
            address += skipped;
            pieces.push((place.address + skipped, missing.min(bytes), id));
            missing -= missing.min(bytes);
        }
        let fence = pieces.iter().map(|p| heap.fence(p.2)).max().unwrap_or(0);
        let mut others = cut(heap, pieces);
        let id = others.pop().expect("invariant: a block has bytes");
        (window.users, window.wanted) = (window.users + 1, self.clock);
        self.held.insert(id, Held { address, window: window.id, others });
        (id, fence)
    }
}

/// Makes parts of free blocks, of an address, bytes and the block each, live: the fewest ranges that are these.
fn cut(heap: &mut Heap, mut pieces: Vec<(u64, u64, BlockId)>) -> Vec<BlockId> {
    // What lies before a range that is cut out keeps the block's row: the last ones come first.
    pieces.sort_unstable();
    let mut ranges = Vec::new();
    while let Some((mut address, mut bytes, id)) = pieces.pop() {
        while let Some((at, length, _)) = pieces.pop_if(|p| p.2 == id && p.0 + p.1 == address) {
            (address, bytes) = (at, bytes + length);
        }
        ranges.push(heap.carve(id, address - heap.block(id).address, bytes));
    }
    ranges
}

/// A block of `bytes` behind a window, of what is ready or in domain `own`, and the mark that it follows. With `make` windows are
/// extended and opened for it.
pub(super) fn take(
    heap: &mut Heap,
    granules: &mut Granules,
    device: &Device,
    own: Domain,
    bytes: u64,
    make: bool,
) -> Option<(BlockId, u64)> {
    if heap.free_bytes() < bytes || !(make || granules.windows.is_any_as_large(bytes)) {
        return None;
    }
    let idle = Idle::of(heap, granules, [Domain::READY, own]);
    let unit = granules.unit;
    let windows = &mut granules.windows;
    let place = windows.place(device, &idle, unit, bytes, make)?;
    Some(windows.lend(heap, &idle, place, bytes))
}
