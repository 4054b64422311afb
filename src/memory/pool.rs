//! The pool of one device: accounts, arenas, launches, cleanup and figures.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::bins::UNIT;
use super::block::{Block, Buffer};
use super::budget::Account;
use super::cache::Cache;
use super::core::{Core, Holder, Inner};
use super::device::Device;
use super::error::{Cause, OutOfMemory};
use super::ladder::{Relief, Request, Rung};
use super::launch::Launch;
use super::options::Options;
use super::provider::{Provider, StreamId};
use super::span::{Lane, Span};
use super::stats::Stats;
use crate::base::lock;
use crate::error::Result;

/// All memory of one device. Clones are handles of the same pool; it lives as long as any block of it.
#[derive(Clone)]
pub struct Pool {
    core: Arc<Core>,
}

impl Pool {
    /// A pool over a device.
    pub fn new(provider: Arc<dyn Provider>, options: Options) -> Self {
        let root = Account::root(provider.name(), u64::MAX);
        Pool { core: Arc::new(Core::new(Device::new(provider), options, root)) }
    }

    /// The account of the process; models are its children, requests theirs.
    pub fn account(&self) -> &Arc<Account> {
        &self.core.root
    }

    /// Where blocks for work on `stream` come from, charged to `account`.
    pub fn arena(&self, account: &Arc<Account>, stream: StreamId) -> Arena {
        let lane = Lane { core: self.core.clone(), stream, account: account.clone(), cache: Cache::new() };
        let lane = Arc::new(lane);
        lock(&self.core.lanes).push(Arc::downgrade(&lane));
        Arena { lane }
    }

    /// Work about to be submitted to `stream`.
    pub fn launch(&self, stream: StreamId) -> Launch<'_> {
        Launch::new(&self.core, stream)
    }

    /// Asks `relief` on that rung of the ladder, from [`Rung::EvictCaches`] on. It may free and allocate.
    pub fn on_shortage(&self, rung: Rung, relief: Relief) {
        self.core.ladder.relief(rung, relief);
    }

    /// Gives free memory back to the device until about `keep_bytes` of it are left. Errors when the device refuses.
    pub fn trim(&self, keep_bytes: u64) -> Result<()> {
        self.core.flush();
        self.core.with(|inner| {
            inner.settle(&self.core.device);
            inner.backing.trim(&mut inner.heap, &self.core.device, keep_bytes)
        })
    }

    /// Figures of this moment.
    pub fn stats(&self) -> Stats {
        self.core.flush();
        let device = &self.core.device;
        self.core.with(|inner| {
            inner.settle(device);
            let free_bytes = inner.heap.free_bytes() + inner.backing.spare_bytes();
            Stats {
                live_bytes: inner.heap.live_bytes(),
                peak_live_bytes: inner.peak_live_bytes,
                reserved_bytes: inner.backing.reserved_bytes(),
                peak_reserved_bytes: inner.peak_reserved_bytes,
                free_bytes,
                largest_free_bytes: inner.backing.largest_bytes(&inner.heap),
                padding_bytes: inner.padding_bytes,
                requests: self.core.requests.load(Relaxed),
                calls: device.calls(),
                rungs: self.core.ladder.counts(),
            }
        })
    }

    /// Recounts everything; what is wrong.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.core.with(|inner| inner.heap.check().and_then(|()| inner.backing.check(&inner.heap)))
    }
}

/// Memory for one stream, charged to one account.
pub struct Arena {
    lane: Arc<Lane>,
}

impl Arena {
    /// `len` elements, contents undefined. Errors when all of the ladder does not find the memory.
    pub fn alloc<T: bytemuck::Pod>(&self, len: usize) -> Result<Buffer<T>, Box<OutOfMemory>> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        let block = self.block(bytes)?;
        Ok(block.typed(len).expect("invariant: the block has that many bytes"))
    }

    /// `bytes`, aligned to 256, contents undefined.
    pub fn block(&self, bytes: u64) -> Result<Block, Box<OutOfMemory>> {
        let size = round(bytes);
        match self.lane.cache.take(size) {
            Some(Ok(span)) => return Ok(Block::new(span, bytes)),
            Some(Err(other)) => other.give_back(),
            None => {}
        }
        self.aligned(bytes, UNIT)
    }

    /// `bytes`, aligned to `align` (a power of two), contents undefined.
    pub fn aligned(&self, bytes: u64, align: u64) -> Result<Block, Box<OutOfMemory>> {
        let (lane, size) = (&self.lane, round(bytes));
        self.charge(size)?;
        let core = &lane.core;
        let room = size + align.saturating_sub(UNIT);
        let zone = core.zone(room);
        let request = Request { stream: lane.stream, zone, bytes: size, align };
        let holder = Holder { account: lane.account.clone(), zone, requested_bytes: bytes };
        let mut hold = |inner: &mut Inner, id| inner.hold(id, size, &holder);
        let fitting = core.with(|inner| {
            let found = inner.fit(request)?;
            hold(inner, found.0);
            Some((found, inner.heap.block(found.0).address))
        });
        core.requests.fetch_add(1, Relaxed);
        let found = fitting.or_else(|| {
            let found = core.climb(request, lane.account.name(), &mut hold)?;
            Some((found, core.with(|inner| inner.heap.block(found.0).address)))
        });
        let Some(((id, last), address)) = found else {
            lane.account.refund(size);
            return Err(OutOfMemory::new(core, bytes, lane.account.name(), Cause::Device));
        };
        Ok(Block::new(Span::new(address, size, id, lane.clone(), last), bytes))
    }

    fn charge(&self, bytes: u64) -> Result<(), Box<OutOfMemory>> {
        let (core, account) = (&self.lane.core, &self.lane.account);
        if account.charge(bytes).is_ok() {
            return Ok(());
        }
        core.flush();
        let Err(full) = account.charge(bytes) else { return Ok(()) };
        let mut enough = || account.charge(bytes).is_ok();
        if core.relieve(bytes, account.name(), &mut enough) {
            return Ok(());
        }
        Err(OutOfMemory::new(core, bytes, account.name(), Cause::Account(full.name().into())))
    }
}

/// Bytes as blocks have them.
fn round(bytes: u64) -> u64 {
    bytes.max(1).checked_next_multiple_of(UNIT).unwrap_or(u64::MAX - UNIT + 1)
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.lane.cache.close().for_each(|span| self.lane.core.returns.push(span));
        self.lane.core.reap();
    }
}
