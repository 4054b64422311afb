//! Blocks of any size, for one stream and one account.

use std::sync::Arc;

use crate::memory::bins::UNIT;
use crate::memory::block::{Block, Buffer};
use crate::memory::core::{Holder, Inner};
use crate::memory::error::OutOfMemory;
use crate::memory::ladder::Request;
use crate::memory::provider::StreamId;
use crate::memory::span::{Lane, Span};

/// No device has as many addresses: larger requests are refused before sums of them overflow.
const LARGEST_BYTES: u64 = 1 << 52;

/// Memory for one stream, charged to one account.
pub struct Arena {
    lane: Arc<Lane>,
}

impl Arena {
    pub(in crate::memory) fn new(lane: Arc<Lane>) -> Self {
        Arena { lane }
    }

    /// Its stream.
    pub fn stream(&self) -> StreamId {
        self.lane.stream
    }

    /// `len` elements, contents undefined. Errors when all of the ladder does not find the memory.
    pub fn alloc<T: bytemuck::Pod>(&self, len: usize) -> Result<Buffer<T>, Box<OutOfMemory>> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        let block = self.block(bytes)?;
        Ok(block.typed(len).expect("invariant: the block has that many bytes"))
    }

    /// `bytes`, aligned to 256, contents undefined.
    pub fn block(&self, bytes: u64) -> Result<Block, Box<OutOfMemory>> {
        let size = round(bytes);
        if let Some(span) = self.lane.cache.take(size) {
            return Ok(Block::new(span, bytes));
        }
        self.aligned(bytes, UNIT)
    }

    /// `bytes`, aligned to `align` (a power of two), contents undefined.
    pub fn aligned(&self, bytes: u64, align: u64) -> Result<Block, Box<OutOfMemory>> {
        let (lane, size) = (&self.lane, round(bytes));
        let core = &lane.core;
        let room = size.saturating_add(align.saturating_sub(UNIT));
        if room > LARGEST_BYTES {
            return Err(OutOfMemory::new(core, bytes, lane.account.name(), None));
        }
        core.charge(&lane.account, size)?;
        let zone = core.zone(room);
        let request = Request { stream: lane.stream, zone, bytes: size, align };
        let mut holder = Some(Holder { account: lane.account.clone(), stream: lane.stream, zone, requested_bytes: bytes });
        let mut hold = |inner: &mut Inner, id| {
            if let Some(holder) = holder.take() {
                inner.hold(id, size, holder);
            }
        };
        let fitting = core.with(|inner| {
            inner.requests += 1;
            let found = inner.fit(request)?;
            hold(inner, found.0);
            Some((found, inner.address(found.0)))
        });
        let found = fitting.or_else(|| {
            let found = core.climb(request, lane.account.name(), &mut hold)?;
            Some((found, core.with(|inner| inner.address(found.0))))
        });
        let Some(((id, last), address)) = found else {
            lane.account.refund(size);
            return Err(OutOfMemory::new(core, bytes, lane.account.name(), None));
        };
        Ok(Block::new(Span::new(address, size, id, lane.clone(), last), bytes))
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
