//! Ranges of a sparse address space: live, free in a domain, or without memory behind them.
//!
//! Blocks are a side table, linked with their neighbours by address, so that coalescing takes constant time and no device
//! memory is touched. A free block belongs to a [`Domain`]: it is ready for all, or the work of one stream may still use it up to
//! the block's fence. Neighbours of one domain are always one block.

use std::collections::BTreeMap;

use super::bins::{Bins, Entry, UNIT};
use super::provider::StreamId;

/// Where small blocks lie apart, so that none keeps a large range from being whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// Blocks of any size.
    Large,
    /// Granules that hold small blocks alone.
    Small,
}

/// Who may use a free block, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain(u16);

impl Domain {
    /// Large blocks of everyone: no work uses it any more.
    pub const READY: Domain = Domain::ready(Zone::Large);

    /// Blocks of everyone.
    pub const fn ready(zone: Zone) -> Self {
        Domain(zone as u16)
    }

    /// Blocks for later work of one stream.
    pub fn of(stream: StreamId, zone: Zone) -> Self {
        Domain((stream.0 + 1) * 2 + zone as u16)
    }

    /// Its stream.
    pub fn stream(self) -> Option<StreamId> {
        (self.0 / 2).checked_sub(1).map(StreamId)
    }

    /// Its zone.
    pub fn zone(self) -> Zone {
        if self.0.is_multiple_of(2) { Zone::Large } else { Zone::Small }
    }
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Owned.
    Live,
    /// Free with memory behind it.
    Free(Domain),
    /// Addresses alone.
    Hole,
    /// An unused row of the table.
    Vacant,
}

/// The row of a block.
pub type BlockId = u32;
/// No block.
pub const NONE: BlockId = u32::MAX;

/// A range of addresses.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Block {
    pub address: u64,
    pub bytes: u64,
    pub prev: BlockId,
    pub next: BlockId,
    pub state: State,
    /// Its place in the bin, while it is free.
    slot: u32,
    /// The mark of the domain's stream behind which the block is ready.
    pub fence: u64,
}

impl Block {
    /// The address behind its last byte.
    pub fn end(&self) -> u64 {
        self.address + self.bytes
    }

    fn entry(&self, id: BlockId) -> Entry {
        (self.bytes, id)
    }
}

/// All ranges of a device.
#[derive(Default)]
pub struct Heap {
    blocks: Vec<Block>,
    vacant: Vec<BlockId>,
    domains: Vec<Bins>,
    holes: BTreeMap<u64, BlockId>,
    live_bytes: u64,
}

impl Heap {
    /// A block.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id as usize]
    }

    /// Sum of live blocks.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Free ranges of a domain.
    pub fn bins(&self, domain: Domain) -> Option<&Bins> {
        self.domains.get(usize::from(domain.0))
    }

    /// Domains that have free ranges.
    pub fn domains(&self) -> impl Iterator<Item = Domain> + use<> {
        let used: Vec<_> = (0..self.domains.len()).filter(|&d| self.domains[d].count() > 0).map(|d| Domain(d as u16)).collect();
        used.into_iter()
    }

    /// Sum of free ranges.
    pub fn free_bytes(&self) -> u64 {
        self.domains.iter().map(Bins::bytes).sum()
    }

    /// The largest free range.
    pub fn largest_free_bytes(&self) -> u64 {
        self.domains.iter().filter_map(|b| b.largest()).map(|e| e.0).max().unwrap_or(0)
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
    pub fn blocks(&self) -> impl Iterator<Item = (BlockId, &Block)> {
        self.blocks.iter().enumerate().filter(|(_, b)| b.state != State::Vacant).map(|(i, b)| (i as BlockId, b))
    }

    /// Adds a range that touches no other.
    pub fn add(&mut self, address: u64, bytes: u64, state: State) -> BlockId {
        let id = self.row(Block { address, bytes, prev: NONE, next: NONE, state, slot: 0, fence: 0 });
        self.index(id);
        id
    }

    /// Forgets a free range that is all there is between two ends.
    pub fn remove(&mut self, id: BlockId) {
        self.unindex(id);
        self.vacate(id);
    }

    /// Free blocks of `domain` that have `bytes`, the smallest first.
    pub fn fitting(&self, domain: Domain, bytes: u64) -> impl DoubleEndedIterator<Item = BlockId> + use<> {
        self.bins(domain).map(|bins| bins.fitting(bytes)).unwrap_or_default().into_iter().map(|e| e.1)
    }

    /// All free blocks of `domain`, the largest first.
    pub fn free(&self, domain: Domain) -> impl Iterator<Item = BlockId> + use<> {
        self.fitting(domain, 0).rev()
    }

    /// The smallest free block of `domain` that has `bytes`.
    pub fn best_fit(&self, domain: Domain, bytes: u64) -> Option<Entry> {
        self.domains.get(usize::from(domain.0))?.best_fit(bytes)
    }

    /// Makes `bytes` at `offset` of a free block or a hole a block of its own, in no list yet: live. What is left keeps its state.
    pub fn carve(&mut self, id: BlockId, offset: u64, bytes: u64) -> BlockId {
        debug_assert!(offset.is_multiple_of(UNIT) && bytes.is_multiple_of(UNIT) && bytes > 0);
        self.unindex(id);
        let whole = *self.block(id);
        let mut own = id;
        if offset > 0 {
            own = self.cut(id, offset);
            self.index(id);
        }
        if offset + bytes < whole.bytes {
            let rest = self.cut(own, bytes);
            self.index(rest);
        }
        let block = &mut self.blocks[own as usize];
        block.state = State::Live;
        self.live_bytes += bytes;
        own
    }

    /// Gives a live block another state, as one with its neighbours of that state; the block that it became part of.
    pub fn release(&mut self, id: BlockId, state: State, fence: u64) -> BlockId {
        let own = *self.block(id);
        debug_assert_eq!(own.state, State::Live);
        self.live_bytes -= own.bytes;
        let (mut first, mut bytes, mut fence) = (id, own.bytes, fence);
        if own.prev != NONE && self.block(own.prev).state == state {
            self.unindex(own.prev);
            let prev = *self.block(own.prev);
            (first, bytes, fence) = (own.prev, bytes + prev.bytes, fence.max(prev.fence));
            self.blocks[first as usize].next = own.next;
            self.vacate(id);
        }
        let mut next = own.next;
        if next != NONE && self.block(next).state == state {
            self.unindex(next);
            let joined = *self.block(next);
            (bytes, fence) = (bytes + joined.bytes, fence.max(joined.fence));
            self.vacate(next);
            next = joined.next;
        }
        if next != NONE {
            self.blocks[next as usize].prev = first;
        }
        let block = &mut self.blocks[first as usize];
        (block.bytes, block.next, block.state, block.fence) = (bytes, next, state, fence);
        self.index(first);
        first
    }

    /// Moves a free block to another domain.
    pub fn promote(&mut self, id: BlockId, domain: Domain, fence: u64) -> BlockId {
        let own = self.carve(id, 0, self.block(id).bytes);
        self.release(own, State::Free(domain), fence)
    }

    /// Splits a block that is in no list; the second part.
    #[inline]
    fn cut(&mut self, id: BlockId, at: u64) -> BlockId {
        let whole = *self.block(id);
        let rest = Block { address: whole.address + at, bytes: whole.bytes - at, prev: id, ..whole };
        let new = self.row(rest);
        let first = &mut self.blocks[id as usize];
        (first.bytes, first.next) = (at, new);
        if whole.next != NONE {
            self.blocks[whole.next as usize].prev = new;
        }
        new
    }

    fn row(&mut self, block: Block) -> BlockId {
        match self.vacant.pop() {
            Some(id) => {
                self.blocks[id as usize] = block;
                id
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as BlockId
            }
        }
    }

    fn vacate(&mut self, id: BlockId) {
        self.blocks[id as usize].state = State::Vacant;
        self.vacant.push(id);
    }

    #[inline]
    fn index(&mut self, id: BlockId) {
        let block = self.blocks[id as usize];
        match block.state {
            State::Free(Domain(d)) => {
                if self.domains.len() <= d.into() {
                    self.domains.resize_with(usize::from(d) + 1, Bins::default);
                }
                self.blocks[id as usize].slot = self.domains[usize::from(d)].insert(block.entry(id));
            }
            State::Hole => drop(self.holes.insert(block.address, id)),
            State::Live | State::Vacant => {}
        }
    }

    #[inline]
    fn unindex(&mut self, id: BlockId) {
        let block = self.blocks[id as usize];
        match block.state {
            State::Free(Domain(d)) => {
                if let Some(moved) = self.domains[usize::from(d)].remove(block.bytes, block.slot) {
                    self.blocks[moved as usize].slot = block.slot;
                }
            }
            State::Hole => drop(self.holes.remove(&block.address)),
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
        let counted = self.domains.iter().map(Bins::count).sum::<usize>();
        if live != self.live_bytes || free != counted || holes != self.holes.len() {
            return Err("counts differ from a recount".into());
        }
        let listed = self.domains.iter().enumerate().all(|(d, bins)| {
            bins.consistent()
                && bins.fitting(0).into_iter().all(|e| {
                    let block = self.block(e.1);
                    block.entry(e.1) == e && block.state == State::Free(Domain(d as u16))
                })
        });
        if listed { Ok(()) } else { Err("bins differ from the blocks".into()) }
    }
}
