//! Reuse across streams: later work of one stream waits for earlier work of another, and the host for neither.

use super::core::{Deferred, Inner};
use super::device::Device;
use super::heap::{BlockId, Domain, State};
use super::provider::StreamId;
use crate::error::Result;

impl Inner {
    /// A block of `bytes` from another stream's free memory, behind a wait for the work that used it; and the mark behind the wait.
    pub fn borrow(&mut self, device: &Device, stream: StreamId, bytes: u64, align: u64) -> Result<Option<(BlockId, u64)>> {
        let (own, room) = (Domain::of(stream), bytes + align.saturating_sub(super::bins::UNIT));
        let others = self.heap.domains().filter(|&d| d != own && d != Domain::READY);
        let best = others.filter_map(|d| Some((self.heap.best_fit(d, room)?, d.stream()?))).min();
        let Some(((_, _, id), other)) = best else { return Ok(None) };
        let mark = device.wait(stream, other, self.heap.block(id).fence)?;
        Ok(Some((self.take(id, bytes, align).0, mark)))
    }

    /// Makes all freed memory `stream`'s, behind waits for whatever used it.
    pub fn merge(&mut self, device: &Device, stream: StreamId) -> Result<()> {
        let own = Domain::of(stream);
        while let Some(freed) = self.deferred.pop() {
            self.gather(device, stream, freed)?;
        }
        for domain in self.heap.domains().filter(|&d| d != own) {
            let Some(other) = domain.stream() else { continue };
            let ids: Vec<BlockId> = self.heap.bins(domain).into_iter().flat_map(|b| b.descending()).map(|e| e.2).collect();
            let fence = ids.iter().map(|&id| self.heap.block(id).fence).max().unwrap_or(0);
            let mark = device.wait(stream, other, fence)?;
            for id in ids {
                self.heap.promote(id, own, mark);
            }
        }
        self.absorb(own);
        Ok(())
    }

    /// Makes one block `stream`'s. On an error it stays deferred.
    fn gather(&mut self, device: &Device, stream: StreamId, freed: Deferred) -> Result<()> {
        let mut mark = if freed.home == stream { freed.last } else { 0 };
        let home = (freed.home != stream).then_some((freed.home, freed.last));
        for (other, seq) in freed.uses.iter().copied().chain(home) {
            let waited = if other == stream { Ok(seq) } else { device.wait(stream, other, seq) };
            match waited {
                Ok(seq) => mark = mark.max(seq),
                Err(error) => {
                    self.deferred.push(freed);
                    return Err(error);
                }
            }
        }
        self.heap.release(freed.id, State::Free(Domain::of(stream)), mark);
        Ok(())
    }

    /// The marks behind which all freed memory is ready.
    pub fn fences(&self) -> Vec<(StreamId, u64)> {
        let deferred = self.deferred.iter().flat_map(|d| d.uses.iter().copied().chain([(d.home, d.last)]));
        let pending = self.heap.domains().filter_map(|d| {
            let fence = self.heap.bins(d)?.descending().map(|e| self.heap.block(e.2).fence).max()?;
            Some((d.stream()?, fence))
        });
        deferred.chain(pending).collect()
    }
}
