//! Ranges of a sparse address space: live, free in a domain, or without memory behind them.
//!
//! Blocks are a side table, linked with their neighbours by address, so that coalescing takes constant time and no device
//! memory is touched. A free block belongs to a [`Domain`]: it is ready for all, or the work of one stream may still use it up to
//! the block's fence. Neighbours of one domain are always one block.

use std::collections::BTreeMap;

use super::bins::{Bins, Entry, UNIT};
use super::table::Table;
pub use super::table::{Block, BlockId, Domain, NONE, State, Zone};

/// All ranges of a device.
#[derive(Default)]
pub struct Heap {
    table: Table,
    /// Of domains that ever had a free range.
    domains: Vec<Option<Box<Bins>>>,
    holes: BTreeMap<u64, BlockId>,
    live_bytes: u64,
}

impl Heap {
    /// A block.
    #[inline]
    pub fn block(&self, id: BlockId) -> Block {
        self.table.block(id)
    }

    /// The mark of its stream behind which a free block is ready; 0 where that is everyone's.
    #[inline]
    pub fn fence(&self, id: BlockId) -> u64 {
        self.table.fence(id)
    }

    /// Sum of live blocks.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    #[inline]
    fn bins(&self, domain: Domain) -> Option<&Bins> {
        self.domains.get(domain.number())?.as_deref()
    }

    /// Domains that have free ranges.
    pub fn domains(&self) -> impl Iterator<Item = Domain> + use<> {
        let used: Vec<_> =
            (0..self.domains.len()).map(Domain::numbered).filter(|&d| self.bins(d).is_some_and(|b| b.count() > 0)).collect();
        used.into_iter()
    }

    /// Sum of free ranges.
    pub fn free_bytes(&self) -> u64 {
        self.domains.iter().flatten().map(|b| b.bytes()).sum()
    }

    /// The largest free range.
    pub fn largest_free_bytes(&self) -> u64 {
        self.domains.iter().flatten().filter_map(|b| b.largest(&self.table)).map(|e| e.0).max().unwrap_or(0)
    }

    /// Ranges without memory, by address.
    pub fn holes(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.holes.values().copied()
    }

    /// Blocks from end to end, range by range as they were added.
    pub fn segments(&self) -> Vec<Vec<BlockId>> {
        let firsts = self.blocks().filter(|(_, b)| b.prev == NONE).map(|(id, _)| id);
        let next = |id: &BlockId| Some(self.block(*id).next).filter(|&n| n != NONE);
        firsts.map(|first| std::iter::successors(Some(first), next).collect()).collect()
    }

    /// The hole that an address lies in.
    pub fn hole_at(&self, address: u64) -> Option<BlockId> {
        let (_, &id) = self.holes.range(..=address).next_back()?;
        (address < self.block(id).end()).then_some(id)
    }

    /// All blocks in use.
    pub fn blocks(&self) -> impl Iterator<Item = (BlockId, Block)> {
        self.table.blocks()
    }

    /// Adds a range that touches no other.
    pub fn add(&mut self, address: u64, bytes: u64, state: State) -> BlockId {
        let id = self.table.add(Block { address, bytes, prev: NONE, next: NONE, state });
        self.index(id, state);
        id
    }

    /// Forgets a free range that is all there is between two ends.
    pub fn remove(&mut self, id: BlockId) {
        self.unindex(id, self.block(id).state);
        self.table.vacate(id);
    }

    /// Free blocks of `domain` that have `bytes`, the smallest first.
    pub fn fitting(&self, domain: Domain, bytes: u64) -> impl DoubleEndedIterator<Item = BlockId> + use<> {
        let bins = self.bins(domain);
        bins.map(|bins| bins.fitting(&self.table, bytes)).unwrap_or_default().into_iter().map(|e| e.1)
    }

    /// All free blocks of `domain`, the largest first.
    pub fn free(&self, domain: Domain) -> impl Iterator<Item = BlockId> + use<> {
        self.fitting(domain, 0).rev()
    }

    /// The smallest free block of `domain` that has `bytes`.
    #[inline]
    pub fn best_fit(&self, domain: Domain, bytes: u64) -> Option<Entry> {
        self.bins(domain)?.best_fit(&self.table, bytes)
    }

    /// Makes `bytes` at `offset` of a free block or a hole a block of its own, in no list yet: live. What is left keeps its state.
    pub fn carve(&mut self, id: BlockId, offset: u64, bytes: u64) -> BlockId {
        debug_assert!(offset.is_multiple_of(UNIT) && bytes.is_multiple_of(UNIT) && bytes > 0);
        let Block { bytes: whole, state, .. } = self.block(id);
        self.unindex(id, state);
        let mut own = id;
        if offset > 0 {
            own = self.cut(id, offset);
            self.index(id, state);
        }
        if offset + bytes < whole {
            let rest = self.cut(own, bytes);
            self.index(rest, state);
        }
        self.table.resize(own, bytes, State::Live);
        self.live_bytes += bytes;
        own
    }

    /// Gives a live block another state, as one with its neighbours of that state; the block that it became part of.
    pub fn release(&mut self, id: BlockId, state: State, fence: u64) -> BlockId {
        let own = self.block(id);
        debug_assert_eq!(own.state, State::Live);
        self.live_bytes -= own.bytes;
        let (mut first, mut bytes, mut next, mut fence) = (id, own.bytes, own.next, fence);
        if self.table.is(own.prev, state) {
            let before = self.block(own.prev);
            self.unindex(own.prev, state);
            (first, bytes, fence) = (own.prev, bytes + before.bytes, fence.max(self.fence(own.prev)));
            self.table.vacate(id);
        }
        if self.table.is(own.next, state) {
            let after = self.block(own.next);
            self.unindex(own.next, state);
            (next, bytes, fence) = (after.next, bytes + after.bytes, fence.max(self.fence(own.next)));
            self.table.vacate(own.next);
        }
        self.table.join(first, next);
        self.table.resize(first, bytes, state);
        self.table.set_fence(first, fence);
        self.index(first, state);
        first
    }

    /// Moves a free block to another domain.
    pub fn promote(&mut self, id: BlockId, domain: Domain, fence: u64) -> BlockId {
        let own = self.carve(id, 0, self.block(id).bytes);
        self.release(own, State::Free(domain), fence)
    }

    /// Splits a block that is in no list; the second part.
    #[inline(always)]
    fn cut(&mut self, id: BlockId, at: u64) -> BlockId {
        let whole = self.block(id);
        let rest = Block { address: whole.address + at, bytes: whole.bytes - at, prev: id, ..whole };
        let new = self.table.add(rest);
        self.table.set_fence(new, self.fence(id));
        self.table.resize(id, at, whole.state);
        self.table.join(id, new);
        self.table.join(new, whole.next);
        new
    }

    #[inline(always)]
    fn index(&mut self, id: BlockId, state: State) {
        match state {
            State::Free(domain) => {
                if self.domains.len() <= domain.number() {
                    self.domains.resize_with(domain.number() + 1, || None);
                }
                self.domains[domain.number()].get_or_insert_default().insert(&mut self.table, id);
            }
            State::Hole => drop(self.holes.insert(self.block(id).address, id)),
            State::Live | State::Vacant => {}
        }
    }

    #[inline(always)]
    fn unindex(&mut self, id: BlockId, state: State) {
        match state {
            State::Free(domain) => {
                if let Some(bins) = &mut self.domains[domain.number()] {
                    bins.remove(&mut self.table, id);
                }
            }
            State::Hole => drop(self.holes.remove(&self.block(id).address)),
            State::Live | State::Vacant => {}
        }
    }

    /// A recount of everything; what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let (mut live, mut free, mut holes) = (0, 0, 0);
        for (id, block) in self.blocks() {
            match block.state {
                State::Live => live += block.bytes,
                State::Free(_) => free += 1,
                _ => holes += 1,
            }
            if block.next != NONE {
                let next = self.block(block.next);
                if next.prev != id || next.address != block.end() {
                    return Err(format!("block {id}: broken link"));
                }
                if next.state == block.state && block.state != State::Live {
                    return Err(format!("block {id}: not coalesced"));
                }
            }
        }
        let counted = self.domains.iter().flatten().map(|b| b.count()).sum::<usize>();
        if live != self.live_bytes || free != counted || holes != self.holes.len() {
            return Err("counts differ from a recount".into());
        }
        let mut used = self.domains.iter().enumerate().filter_map(|(d, bins)| Some((d, bins.as_ref()?)));
        let listed = used.all(|(d, bins)| {
            let free = State::Free(Domain::numbered(d));
            bins.consistent(&self.table) && self.free(Domain::numbered(d)).all(|id| self.block(id).state == free)
        });
        if listed { Ok(()) } else { Err("bins differ from the blocks".into()) }
    }
}
