//! Reuse across streams: later work of one stream waits for earlier work of another, and the host for neither.

use super::core::{Deferred, Inner};
use super::device::Device;
use super::heap::{BlockId, Domain, State, Zone};
use super::ladder::Request;
use super::provider::StreamId;
use crate::error::Result;

impl Inner {
    /// A block of `bytes` from another stream's free memory, behind a wait for the work that used it; and the mark behind the wait.
    pub fn borrow(&mut self, device: &Device, request: Request) -> Result<Option<(BlockId, u64)>> {
        let Request { stream, zone, bytes, align } = request;
        let others = self.heap.domains().filter(|d| d.zone() == zone).filter_map(|d| Some((d, d.stream()?)));
        let fitting = others.filter(|o| o.1 != stream).filter_map(|(d, o)| Some((self.heap.best_fit(d, request.room())?, o)));
        let best = fitting.min();
        let Some(((_, id), other)) = best else { return Ok(None) };
        let mark = device.wait(stream, other, self.heap.fence(id))?;
        Ok(Some((self.take(id, bytes, align).0, mark)))
    }

    /// Makes all freed memory `stream`'s, behind waits for whatever used it.
    pub fn merge(&mut self, device: &Device, stream: StreamId) -> Result<()> {
        while let Some(freed) = self.deferred.pop() {
            self.gather(device, stream, freed)?;
        }
        for domain in self.heap.domains() {
            let Some(other) = domain.stream().filter(|&s| s != stream) else { continue };
            let ids = self.heap.free(domain);
            let fence = self.heap.free(domain).map(|id| self.heap.fence(id)).max().unwrap_or(0);
            let mark = device.wait(stream, other, fence)?;
            for id in ids {
                self.heap.promote(id, Domain::of(stream, domain.zone()), mark);
            }
        }
        self.absorb(Domain::of(stream, Zone::Large));
        self.absorb(Domain::of(stream, Zone::Small));
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
        self.backing.put(&mut self.heap, freed.id, State::Free(Domain::of(stream, freed.zone)), mark);
        Ok(())
    }

    /// The marks behind which all freed memory is ready.
    pub fn fences(&self) -> Vec<(StreamId, u64)> {
        let deferred = self.deferred.iter().flat_map(|d| d.uses.iter().copied().chain([(d.home, d.last)]));
        let pending = self.heap.domains().filter_map(|d| {
            let fence = self.heap.free(d).map(|id| self.heap.fence(id)).max()?;
            Some((d.stream()?, fence))
        });
        deferred.chain(pending).collect()
    }
}
