//! The pool's state behind its lock: fitting requests into free blocks, and what becomes of freed ones.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::Instant;

use smallvec::SmallVec;

use super::backing::Backing;
use super::bins::UNIT;
use super::budget::Account;
use super::device::Device;
use super::heap::{Block, BlockId, Domain, Heap, NONE, State, Zone};
use super::ladder::{Ladder, Request};
use super::movable::Seat;
use super::options::Options;
use super::provider::StreamId;
use super::span::{Lane, Returns, Span};
use super::timeline::{EventKind, Timeline};
use crate::base::lock;

/// Blocks of up to this part of a granule are small: 64 KiB of 2 MiB.
const SMALL_PART: u64 = 32;

/// Everything that a pool's handles share.
pub(super) struct Core {
    pub device: Device,
    pub options: Options,
    pub inner: Mutex<Inner>,
    pub returns: Returns,
    pub lanes: Mutex<Vec<Weak<Lane>>>,
    pub movables: Mutex<Vec<Weak<Seat>>>,
    pub ladder: Ladder,
    pub root: Arc<Account>,
    /// The largest small block; 0 where there are no granules.
    small_bytes: u64,
}

/// Who holds a live block, and how much of it was asked for.
#[derive(Clone)]
pub(super) struct Holder {
    pub account: Arc<Account>,
    pub stream: StreamId,
    pub zone: Zone,
    pub requested_bytes: u64,
}

/// A freed block that work of several streams may still use.
pub(super) struct Deferred {
    pub id: BlockId,
    pub zone: Zone,
    pub home: StreamId,
    pub last: u64,
    pub uses: Vec<(StreamId, u64)>,
}

/// What the lock guards.
pub(super) struct Inner {
    pub heap: Heap,
    pub backing: Backing,
    pub deferred: Vec<Deferred>,
    /// Holders of live blocks, by their rows in the heap.
    pub holders: Vec<Option<Holder>>,
    pub peak_live_bytes: u64,
    pub peak_reserved_bytes: u64,
    pub padding_bytes: u64,
    /// Requests that the heap served: those that no cache did.
    pub requests: u64,
    /// The fewest free bytes since `since`: those that nobody wanted.
    pub unwanted_bytes: u64,
    pub since: Instant,
    pub timeline: Timeline,
}

impl Core {
    pub fn new(device: Device, options: Options, root: Arc<Account>) -> Self {
        let backing = Backing::new(&device, &options);
        let small_bytes = device.provider.mapping().map_or(0, |m| m.granularity_bytes() / SMALL_PART);
        let inner = Inner {
            heap: Heap::default(),
            backing,
            deferred: Vec::new(),
            holders: Vec::new(),
            peak_live_bytes: 0,
            peak_reserved_bytes: 0,
            padding_bytes: 0,
            requests: 0,
            unwanted_bytes: 0,
            since: Instant::now(),
            timeline: device.timeline.clone(),
        };
        let (lanes, movables, ladder) = Default::default();
        Core { device, options, inner: Mutex::new(inner), returns: Returns::new(), lanes, movables, ladder, root, small_bytes }
    }

    /// Works on the state, with all returned blocks back in the heap.
    pub fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = lock(&self.inner);
        let taken = inner.take_back(&self.device, &self.returns);
        let before = inner.backing.reserved_bytes();
        let result = work(&mut inner);
        inner.note_reserved(before);
        drop(inner);
        drop(taken);
        self.reap();
        result
    }

    /// Whether caches take freed blocks: a hit of theirs would be no event of the timeline.
    pub fn caching(&self) -> bool {
        self.options.caching && !self.device.timeline.is_kept()
    }

    /// Takes returned blocks back unless another holds the lock: that one does it before it is done.
    pub fn reap(&self) {
        while !self.returns.is_empty() {
            let Some(mut inner) = self.try_lock() else { return };
            let taken = inner.take_back(&self.device, &self.returns);
            drop(inner);
            // Last: a span may hold the last reference to this.
            drop(taken);
        }
    }

    /// Takes a block back at once, unless another holds the lock: that one does it before it is done. Never blocks.
    pub fn give_back(span: Box<Span>) {
        if let Some(mut inner) = span.lane.core.try_lock() {
            inner.end(&span.lane.core.device, &span);
            drop(inner);
            return span.lane.core.reap();
        }
        let core = span.lane.core.clone();
        core.returns.push(span);
        core.reap();
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Empties all caches into the heap.
    pub fn flush(&self) {
        let mut lanes = lock(&self.lanes);
        lanes.retain(|lane| lane.strong_count() > 0);
        let all: Vec<Arc<Lane>> = lanes.iter().filter_map(Weak::upgrade).collect();
        drop(lanes);
        all.iter().flat_map(|lane| lane.cache.drain()).for_each(|span| self.returns.push(span));
        self.with(|_| ());
    }

    /// Where blocks of `room` bytes lie.
    pub fn zone(&self, room: u64) -> Zone {
        if room <= self.small_bytes { Zone::Small } else { Zone::Large }
    }

    /// The most that may be reserved.
    pub fn limit_bytes(&self) -> u64 {
        self.options.limit_bytes.min(self.device.provider.capacity_bytes())
    }
}

impl Inner {
    /// Returned blocks into the heap. The spans live on until the lock is free again.
    pub fn take_back(&mut self, device: &Device, returns: &Returns) -> SmallVec<[Box<Span>; 4]> {
        let taken: SmallVec<[Box<Span>; 4]> = returns.take().collect();
        taken.iter().for_each(|span| self.end(device, span));
        taken
    }

    /// The block of a span that is about to be dropped, into the heap.
    fn end(&mut self, device: &Device, span: &Span) {
        let Some(holder) = self.holders[span.id as usize].take() else { return };
        holder.account.refund(span.bytes);
        self.padding_bytes -= span.bytes - holder.requested_bytes;
        self.timeline.record(EventKind::Free, self.heap.block(span.id).address, span.bytes, holder.stream, holder.account.name());
        let freed = Deferred { id: span.id, zone: holder.zone, home: span.lane.stream, last: span.last(), uses: span.uses() };
        self.free(device, freed);
    }

    /// Puts a block that nobody owns any more where it may be used again.
    fn free(&mut self, device: &Device, mut freed: Deferred) {
        freed.uses.retain(|&(stream, seq)| device.completed(stream) < seq);
        if !freed.uses.is_empty() {
            self.deferred.push(freed);
            return;
        }
        let done = device.completed(freed.home) >= freed.last;
        let (domain, fence) =
            if done { (Domain::ready(freed.zone), 0) } else { (Domain::of(freed.home, freed.zone), freed.last) };
        self.backing.put(&mut self.heap, freed.id, State::Free(domain), fence);
    }

    /// Moves what completed work has used to where everyone may use it.
    pub fn settle(&mut self, device: &Device) {
        for freed in std::mem::take(&mut self.deferred) {
            self.free(device, freed);
        }
        for domain in self.heap.domains() {
            let Some(stream) = domain.stream() else { continue };
            let completed = device.completed(stream);
            let done = |id: &BlockId| self.heap.fence(*id) <= completed;
            let ids: Vec<BlockId> = self.heap.free(domain).filter(done).collect();
            for id in ids {
                self.heap.promote(id, Domain::ready(domain.zone()), 0);
            }
        }
        self.dissolve();
    }

    /// Joins the ready neighbours of a stream's free blocks to them: it may use both.
    pub fn absorb(&mut self, own: Domain) {
        let sides = self.heap.free(own).flat_map(|id| [self.heap.block(id).prev, self.heap.block(id).next]);
        let mut ready: Vec<BlockId> =
            sides.filter(|&n| n != NONE && self.heap.block(n).state == State::Free(Domain::ready(own.zone()))).collect();
        ready.sort_unstable();
        ready.dedup();
        for id in ready {
            self.heap.promote(id, own, 0);
        }
    }

    /// Where a live block lies.
    pub fn address(&self, id: BlockId) -> u64 {
        self.backing.windows().and_then(|w| w.address(id)).unwrap_or(self.heap.block(id).address)
    }

    /// Notes who holds a block now.
    pub fn hold(&mut self, id: BlockId, bytes: u64, holder: Holder) {
        if self.holders.len() <= id as usize {
            self.holders.resize(id as usize + 1, None);
        }
        self.timeline.record(EventKind::Alloc, self.heap.block(id).address, bytes, holder.stream, holder.account.name());
        self.padding_bytes += bytes - holder.requested_bytes;
        self.holders[id as usize] = Some(holder);
        self.peak_live_bytes = self.peak_live_bytes.max(self.heap.live_bytes());
        self.unwanted_bytes = self.unwanted_bytes.min(self.free_bytes());
    }

    /// A block of `bytes` for `stream` from what it may use at once, and the mark that it follows.
    pub fn fit(&mut self, request: Request) -> Option<(BlockId, u64)> {
        let Request { stream, zone, bytes, align } = request;
        let own = self.heap.best_fit(Domain::of(stream, zone), request.room());
        let ready = self.heap.best_fit(Domain::ready(zone), request.room());
        let best = match (own, ready) {
            (Some(own), Some(ready)) => own.min(ready),
            (own, ready) => own.or(ready)?,
        };
        Some(self.take(best.1, bytes, align))
    }

    /// Notes what was taken from the device or given back since `before`.
    fn note_reserved(&mut self, before: u64) {
        let now = self.backing.reserved_bytes();
        self.peak_reserved_bytes = self.peak_reserved_bytes.max(now);
        let kind = if now > before { EventKind::Grow } else { EventKind::Shrink };
        if now != before {
            self.timeline.note(kind, 0, now.abs_diff(before));
        }
    }

    /// Reserved bytes that are in no live block.
    pub fn free_bytes(&self) -> u64 {
        self.backing.reserved_bytes() - self.heap.live_bytes()
    }

    /// Makes an idle granule room for small blocks; whether there was one.
    pub fn chunk(&mut self) -> bool {
        let Backing::Mapped(granules) = &self.backing else { return false };
        let unit = granules.unit;
        let whole = |id: &BlockId| {
            let block = self.heap.block(*id);
            block.address.next_multiple_of(unit) + unit <= block.end()
        };
        let Some(id) = self.heap.fitting(Domain::READY, unit).find(whole) else { return false };
        let address = self.heap.block(id).address;
        let part = self.heap.carve(id, address.next_multiple_of(unit) - address, unit);
        self.heap.release(part, State::Free(Domain::ready(Zone::Small)), 0);
        true
    }

    /// Gives granules that hold no small block any more back to the large ones.
    fn dissolve(&mut self) {
        let Backing::Mapped(granules) = &self.backing else { return };
        let unit = granules.unit;
        for id in self.heap.fitting(Domain::ready(Zone::Small), unit) {
            let Block { address, bytes, .. } = self.heap.block(id);
            let (first, end) = (address.next_multiple_of(unit), (address + bytes) / unit * unit);
            if first < end {
                let part = self.heap.carve(id, first - address, end - first);
                self.heap.release(part, State::Free(Domain::READY), 0);
            }
        }
    }

    /// Carves `bytes` out of a free block; the fence that it had.
    pub fn take(&mut self, id: BlockId, bytes: u64, align: u64) -> (BlockId, u64) {
        let (block, fence) = (self.heap.block(id), self.heap.fence(id));
        let offset = block.address.next_multiple_of(align.max(UNIT)) - block.address;
        (self.heap.carve(id, offset, bytes), fence)
    }
}

impl Drop for Core {
    /// Gives everything back to the device. Work that is not done after the options' wait keeps its memory.
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(|e| e.into_inner());
        let streams = self.device.provider.streams();
        let done =
            inner.fences().iter().all(|&(stream, seq)| matches!(streams.wait_host(stream, seq, self.options.wait), Ok(true)));
        if done {
            inner.settle(&self.device);
            inner.backing.close(&mut inner.heap, &self.device);
        }
    }
}
