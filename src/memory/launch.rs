//! Work that is about to be submitted to a stream. Addresses are handed out here, so that no use goes unrecorded.

use smallvec::SmallVec;

use super::arena::Part;
use super::block::Block;
use super::core::Core;
use super::movable::{Movable, Seat};
use super::provider::StreamId;
use super::span::Span;
use crate::error::Result;

/// The blocks of one submission. While it lives they cannot be dropped; when it ends the stream is marked, and each block
/// is free for others only behind that mark.
pub struct Launch<'b> {
    core: &'b Core,
    stream: StreamId,
    spans: SmallVec<[&'b Span; 8]>,
    seats: SmallVec<[&'b Seat; 2]>,
}

impl<'b> Launch<'b> {
    pub(super) fn new(core: &'b Core, stream: StreamId) -> Self {
        Launch { core, stream, spans: SmallVec::new(), seats: SmallVec::new() }
    }

    /// The address of a block for this work. Where the block is another stream's, the work waits for that one's last use of it.
    /// Errors when the device cannot be told to wait.
    pub fn bind(&mut self, block: &'b Block) -> Result<u64> {
        self.follow(block.span())?;
        self.spans.push(block.span());
        Ok(block.span().address)
    }

    /// The address that a movable block has while this work lives.
    pub fn bind_movable(&mut self, movable: &'b Movable) -> Result<u64> {
        let seat = movable.seat();
        let block = seat.block();
        self.follow(block.span())?;
        seat.pin();
        self.seats.push(seat);
        Ok(block.span().address)
    }

    /// The address of a part of a block.
    pub fn bind_part(&mut self, part: &'b Part) -> Result<u64> {
        Ok(self.bind(part.block())? + part.offset())
    }

    /// Its stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    fn follow(&self, span: &Span) -> Result<()> {
        if span.lane.stream != self.stream {
            let last = span.last();
            if self.core.device.completed(span.lane.stream) < last {
                self.core.device.wait(self.stream, span.lane.stream, last)?;
            }
        }
        Ok(())
    }

    /// Ends the work: all of it was submitted. Errors when the device cannot mark its stream; the blocks then count as used up to
    /// the next mark.
    pub fn submit(mut self) -> Result<u64> {
        self.end()
    }

    fn end(&mut self) -> Result<u64> {
        if self.spans.is_empty() && self.seats.is_empty() {
            return Ok(self.core.device.completed(self.stream));
        }
        let marked = self.core.device.provider.streams().mark(self.stream);
        let seq = marked.as_ref().copied().unwrap_or_else(|_| self.core.device.completed(self.stream) + 1);
        for span in self.spans.drain(..) {
            span.used(self.stream, seq);
        }
        for seat in self.seats.drain(..) {
            seat.block().span().used(self.stream, seq);
            seat.unpin();
        }
        marked
    }
}

impl Drop for Launch<'_> {
    fn drop(&mut self) {
        // The error is `submit`'s to tell.
        let _ = self.end();
    }
}
