//! Work that is about to be submitted to a stream. Addresses are handed out here, so that no use goes unrecorded.

use smallvec::SmallVec;

use super::block::Block;
use super::core::Core;
use super::provider::StreamId;
use super::span::Span;
use crate::error::Result;

/// The blocks of one submission. While it lives they cannot be dropped; when it ends the stream is marked, and each block
/// is free for others only behind that mark.
pub struct Launch<'b> {
    core: &'b Core,
    stream: StreamId,
    spans: SmallVec<[&'b Span; 8]>,
}

impl<'b> Launch<'b> {
    pub(super) fn new(core: &'b Core, stream: StreamId) -> Self {
        Launch { core, stream, spans: SmallVec::new() }
    }

    /// The address of a block for this work. Where the block is another stream's, the work waits for that one's last use of it.
    /// Errors when the device cannot be told to wait.
    pub fn bind(&mut self, block: &'b Block) -> Result<u64> {
        let span = block.span();
        if span.lane.stream != self.stream {
            let last = span.last();
            if self.core.device.completed(span.lane.stream) < last {
                self.core.device.wait(self.stream, span.lane.stream, last)?;
            }
        }
        self.spans.push(span);
        Ok(span.address)
    }

    /// Ends the work: all of it was submitted. Errors when the device cannot mark its stream; the blocks then count as used up to
    /// the next mark.
    pub fn submit(mut self) -> Result<u64> {
        self.end()
    }

    fn end(&mut self) -> Result<u64> {
        if self.spans.is_empty() {
            return Ok(self.core.device.completed(self.stream));
        }
        let marked = self.core.device.provider.streams().mark(self.stream);
        let seq = marked.as_ref().copied().unwrap_or_else(|_| self.core.device.completed(self.stream) + 1);
        for span in self.spans.drain(..) {
            span.used(self.stream, seq);
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
