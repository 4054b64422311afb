//! Blocks that may be moved while nobody uses them: the cure for fragmentation where memory cannot be remapped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::backing::Backing;
use super::block::Block;
use super::core::{Core, Inner};
use super::heap::{BlockId, Domain, NONE, State};
use super::span::Span;
use crate::base::lock;

/// A round frees places that the next one fills.
const ROUNDS: usize = 8;

/// A block whose address may change between launches, contents kept. Clones are the same block.
#[derive(Debug, Clone)]
pub struct Movable {
    seat: Arc<Seat>,
}

/// Where the block is now.
#[derive(Debug)]
pub(super) struct Seat {
    block: Mutex<Block>,
    /// Launches under way that were told the address.
    pins: AtomicU32,
}

impl Movable {
    /// Makes a block movable. Only addresses that a launch was told are to be used from now on.
    pub fn new(block: Block) -> Self {
        let core = block.span().lane.core.clone();
        let seat = Arc::new(Seat { block: Mutex::new(block), pins: AtomicU32::new(0) });
        lock(&core.movables).push(Arc::downgrade(&seat));
        Movable { seat }
    }

    /// Bytes that were asked for.
    pub fn bytes(&self) -> u64 {
        lock(&self.seat.block).bytes()
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl Seat {
    pub fn block(&self) -> MutexGuard<'_, Block> {
        lock(&self.block)
    }

    pub fn pin(&self) {
        self.pins.fetch_add(1, Ordering::AcqRel);
    }

    pub fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Core {
    /// Compacts until nothing moves any more, waiting for the copies between rounds.
    pub fn compact(&self) {
        for _ in 0..ROUNDS {
            if self.with(|inner| inner.compact(self)) == 0 {
                return;
            }
            self.wait_for_work();
            self.with(|inner| inner.settle(&self.device));
        }
    }
}

impl Inner {
    /// Empties slabs that hold movable blocks alone, those with the fewest live bytes first, into what is free elsewhere. Copies
    /// happen in the order of each block's stream; the old places are free behind them. How many blocks moved.
    fn compact(&mut self, core: &Core) -> usize {
        if let Backing::Mapped(_) = self.backing {
            return 0;
        }
        let mut all = lock(&core.movables);
        all.retain(|s| s.strong_count() > 0);
        let seats: Vec<Arc<Seat>> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        let seats: HashMap<BlockId, &Seat> =
            seats.iter().filter_map(|s| Some((s.block.try_lock().ok()?.span().id, &**s))).collect();
        let mut slabs = self.heap.segments();
        let live = |id: &BlockId| Some(self.heap.block(*id)).filter(|b| b.state == State::Live).map_or(0, |b| b.bytes);
        slabs.sort_by_cached_key(|slab| slab.iter().map(live).sum::<u64>());
        slabs.into_iter().map(|slab| self.evacuate(core, &seats, &slab)).sum()
    }

    /// Moves all of a slab's blocks elsewhere, if all may move and have room there.
    fn evacuate(&mut self, core: &Core, seats: &HashMap<BlockId, &Seat>, slab: &[BlockId]) -> usize {
        let heap = &self.heap;
        let in_state = |state| slab.iter().copied().filter(move |&id| heap.block(id).state == state);
        let moving: Option<Vec<&Seat>> = in_state(State::Live).map(|id| seats.get(&id).copied()).collect();
        let Some(moving) = moving.filter(|m| !m.is_empty()) else { return 0 };
        // What is free in the slab itself is no place to go to.
        let ready: Vec<BlockId> = in_state(State::Free(Domain::READY)).collect();
        let shut: Vec<BlockId> = ready.into_iter().map(|id| self.heap.carve(id, 0, self.heap.block(id).bytes)).collect();
        let moved = moving.iter().take_while(|seat| self.relocate(core, seat).is_some()).count();
        for id in shut {
            self.heap.release(id, State::Free(Domain::READY), 0);
        }
        moved
    }

    /// Moves one block, unless it is pinned, in use on other streams, or has nowhere to go.
    fn relocate(&mut self, core: &Core, seat: &Seat) -> Option<()> {
        let mut block = seat.block.try_lock().ok()?;
        let span = block.span();
        let device = &core.device;
        let lane = span.lane.clone();
        let abroad = span.uses().iter().any(|&(stream, seq)| device.completed(stream) < seq);
        let holder = self.holders[span.id as usize].clone()?;
        if seat.pins.load(Ordering::Acquire) > 0 || abroad {
            return None;
        }
        // Not into a slab that is empty: nothing would be won.
        let beside = |id: &BlockId| self.heap.block(*id).prev != NONE || self.heap.block(*id).next != NONE;
        let id = self.heap.fitting(Domain::READY, span.bytes).find(beside)?;
        lane.account.charge(span.bytes).ok()?;
        let (id, _) = self.take(id, span.bytes, 0);
        let address = self.heap.block(id).address;
        let copied = device.copy(lane.stream, span.address, address, block.bytes());
        let Ok(mark) = copied.and_then(|()| device.provider.streams().mark(lane.stream)) else {
            // The copy may be under way: the place is free behind the next mark.
            lane.account.refund(span.bytes);
            self.heap.release(id, State::Free(Domain::of(lane.stream, holder.zone)), device.completed(lane.stream) + 1);
            return None;
        };
        span.used(lane.stream, mark);
        self.hold(id, span.bytes, holder);
        let new = Block::new(Span::new(address, span.bytes, id, lane, mark), block.bytes());
        // The lock of the state is held: the old block waits in the returns until it is free.
        drop(std::mem::replace(&mut *block, new));
        Some(())
    }
}
