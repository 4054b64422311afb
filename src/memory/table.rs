//! The rows of the heap's blocks. A row is half a line of the processor's cache: a step to a neighbour costs one access.

use super::bins::UNIT;
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
pub struct Domain(u32);

impl Domain {
    /// Large blocks of everyone: no work uses it any more.
    pub const READY: Domain = Domain::ready(Zone::Large);

    /// Blocks of everyone.
    pub const fn ready(zone: Zone) -> Self {
        Domain(zone as u32)
    }

    /// Blocks for later work of one stream.
    pub fn of(stream: StreamId, zone: Zone) -> Self {
        Domain((u32::from(stream.0) + 1) * 2 + zone as u32)
    }

    /// The domain of a number, from 0 on.
    pub(super) fn numbered(number: usize) -> Self {
        Domain(number as u32)
    }

    /// Its number.
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    /// Its stream.
    pub fn stream(self) -> Option<StreamId> {
        (self.0 / 2).checked_sub(1).map(|stream| StreamId(stream as u16))
    }

    /// Its zone.
    pub fn zone(self) -> Zone {
        if self.0.is_multiple_of(2) { Zone::Large } else { Zone::Small }
    }
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An unused row of the table.
    Vacant,
    /// Owned.
    Live,
    /// Addresses alone.
    Hole,
    /// Free with memory behind it.
    Free(Domain),
}

impl State {
    /// Whether work of a stream may still use it.
    #[inline]
    fn is_pending(self) -> bool {
        matches!(self, State::Free(domain) if domain.stream().is_some())
    }

    #[inline]
    fn code(self) -> u64 {
        match self {
            State::Vacant => 0,
            State::Live => 1,
            State::Hole => 2,
            State::Free(Domain(d)) => u64::from(d) + 3,
        }
    }

    #[inline]
    fn of(code: u64) -> Self {
        match code {
            0 => State::Vacant,
            1 => State::Live,
            2 => State::Hole,
            d => State::Free(Domain((d - 3) as u32)),
        }
    }
}

/// The row of a block.
pub type BlockId = u32;
/// No block. Its row exists and is vacant, so that a link to a neighbour is written without asking whether there is one.
pub const NONE: BlockId = 0;

/// A range of addresses.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Block {
    pub address: u64,
    pub bytes: u64,
    pub prev: BlockId,
    pub next: BlockId,
    pub state: State,
}

impl Block {
    /// The address behind its last byte.
    pub fn end(&self) -> u64 {
        self.address + self.bytes
    }
}

/// Bits of a size that hold the state: enough for the domains of all streams.
const STATE_BITS: u32 = 18;
const STATE: u64 = (1 << STATE_BITS) - 1;

#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Row {
    address: u64,
    /// Units above, the state below: ranges of up to 16 PiB.
    size: u64,
    prev: BlockId,
    next: BlockId,
    /// Neighbours in the list of its bin, while it is free.
    before: BlockId,
    after: BlockId,
}

/// All rows.
pub(super) struct Table {
    rows: Vec<Row>,
    /// The first vacant row, linked with the others by `next`.
    vacant: BlockId,
    /// For free blocks of a stream, the mark behind which they are ready.
    fences: Vec<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Table { rows: vec![Row::default()], vacant: NONE, fences: vec![0] }
    }
}

impl Table {
    #[inline]
    fn row(&self, id: BlockId) -> &Row {
        &self.rows[id as usize]
    }

    #[inline]
    fn row_mut(&mut self, id: BlockId) -> &mut Row {
        &mut self.rows[id as usize]
    }

    #[inline]
    pub fn block(&self, id: BlockId) -> Block {
        let Row { address, size, prev, next, .. } = *self.row(id);
        Block { address, bytes: (size >> STATE_BITS) * UNIT, prev, next, state: State::of(size & STATE) }
    }

    /// Whether a block is of a state; no block is of none.
    #[inline]
    pub fn is(&self, id: BlockId, state: State) -> bool {
        self.row(id).size & STATE == state.code()
    }

    #[inline]
    pub fn bytes(&self, id: BlockId) -> u64 {
        (self.row(id).size >> STATE_BITS) * UNIT
    }

    /// The mark of its stream behind which a free block is ready; 0 where that is everyone's.
    #[inline]
    pub fn fence(&self, id: BlockId) -> u64 {
        if self.block(id).state.is_pending() { self.fences[id as usize] } else { 0 }
    }

    /// All blocks.
    pub fn blocks(&self) -> impl Iterator<Item = (BlockId, Block)> {
        let all = (1..self.rows.len() as BlockId).map(|id| (id, self.block(id)));
        all.filter(|(_, block)| block.state != State::Vacant)
    }

    /// A row for a block.
    #[inline(always)]
    pub fn add(&mut self, block: Block) -> BlockId {
        let mut id = self.vacant;
        if id == NONE {
            id = self.rows.len() as BlockId;
            self.rows.push(Row::default());
            self.fences.push(0);
        } else {
            self.vacant = self.row(id).next;
        }
        let Block { address, bytes, prev, next, state } = block;
        let row = self.row_mut(id);
        (row.address, row.prev, row.next) = (address, prev, next);
        self.resize(id, bytes, state);
        id
    }

    #[inline]
    pub fn vacate(&mut self, id: BlockId) {
        let free = std::mem::replace(&mut self.vacant, id);
        let row = self.row_mut(id);
        (row.size, row.next) = (0, free);
    }

    #[inline]
    pub fn resize(&mut self, id: BlockId, bytes: u64, state: State) {
        self.row_mut(id).size = (bytes / UNIT) << STATE_BITS | state.code();
    }

    /// Makes two blocks neighbours.
    #[inline]
    pub fn join(&mut self, first: BlockId, second: BlockId) {
        self.row_mut(first).next = second;
        self.row_mut(second).prev = first;
    }

    #[inline]
    pub fn set_fence(&mut self, id: BlockId, fence: u64) {
        if self.block(id).state.is_pending() {
            self.fences[id as usize] = fence;
        }
    }

    /// The next block in the list of a bin.
    #[inline]
    pub fn after(&self, id: BlockId) -> BlockId {
        self.row(id).after
    }

    /// Puts a block before `head` in a list.
    #[inline]
    pub fn list(&mut self, id: BlockId, head: BlockId) {
        self.row_mut(head).before = id;
        let row = self.row_mut(id);
        (row.before, row.after) = (NONE, head);
    }

    /// Takes a block out of its list; those before and after it.
    #[inline]
    pub fn unlist(&mut self, id: BlockId) -> (BlockId, BlockId) {
        let Row { before, after, .. } = *self.row(id);
        self.row_mut(before).after = after;
        self.row_mut(after).before = before;
        (before, after)
    }
}
