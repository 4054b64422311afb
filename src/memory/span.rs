//! A live range and where it goes when its owner lets go of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::budget::Account;
use super::cache::Cache;
use super::core::Core;
use super::heap::BlockId;
use super::lockfree::{Chained, Stack, put};
use super::provider::StreamId;
use crate::base::lock;

/// Where an arena's blocks come from and return to: one stream, one account.
pub(super) struct Lane {
    pub core: Arc<Core>,
    pub stream: StreamId,
    pub account: Arc<Account>,
    pub cache: Cache,
}

/// A live block of the heap. Whoever holds the box owns the block.
pub(super) struct Span {
    pub address: u64,
    pub bytes: u64,
    pub id: BlockId,
    pub lane: Arc<Lane>,
    /// The mark of the lane's stream behind its last use there.
    last: AtomicU64,
    abroad: AtomicBool,
    /// Marks behind its last use on other streams.
    foreign: Mutex<Vec<(StreamId, u64)>>,
    next: *mut Span,
}

// SAFETY: `next` is read and written only by `Returns`, which owns the span then.
unsafe impl Send for Span {}
// SAFETY: as above; shared references see atomics, a lock and plain values.
unsafe impl Sync for Span {}

impl Span {
    pub fn new(address: u64, bytes: u64, id: BlockId, lane: Arc<Lane>, last: u64) -> Box<Self> {
        let (abroad, foreign) = Default::default();
        Box::new(Span { address, bytes, id, lane, last: last.into(), abroad, foreign, next: std::ptr::null_mut() })
    }

    /// The mark of the lane's stream that later work elsewhere has to wait for.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Notes a use up to mark `seq` of `stream`.
    pub fn used(&self, stream: StreamId, seq: u64) {
        if stream == self.lane.stream {
            self.last.fetch_max(seq, Ordering::AcqRel);
            return;
        }
        let mut foreign = lock(&self.foreign);
        match foreign.iter_mut().find(|f| f.0 == stream) {
            Some(f) => f.1 = f.1.max(seq),
            None => foreign.push((stream, seq)),
        }
        self.abroad.store(true, Ordering::Release);
    }

    /// Marks of other streams behind its uses there.
    pub fn uses(&self) -> Vec<(StreamId, u64)> {
        if self.abroad.load(Ordering::Acquire) { lock(&self.foreign).clone() } else { Vec::new() }
    }

    /// Gives the block back: to its lane's cache, else to the heap as soon as nobody holds the heap's lock. Never blocks.
    pub fn give_back(self: Box<Self>) {
        let cacheable = !self.abroad.load(Ordering::Acquire) && self.lane.core.caching();
        let span = match self.lane.cache.set(self.bytes).filter(|_| cacheable).map(std::ptr::from_ref) {
            // SAFETY: the span keeps its lane alive until a slot has taken it.
            Some(set) => unsafe { put(set, self) },
            None => Err(self),
        };
        if let Err(span) = span {
            Core::give_back(span);
        }
    }
}

/// Spans on their way to the heap.
pub(super) type Returns = Stack<Span>;

impl Chained for Span {
    fn link(&mut self) -> &mut *mut Self {
        &mut self.next
    }
}
