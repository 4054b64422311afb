//! The provider with its calls counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::provider::{Handle, Mapping, Provider, StreamId};
use super::timeline::{EventKind, Timeline};
use crate::base::lock;
use crate::error::{Error, Result};

/// How often the pool called its provider, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct DriverCalls {
    pub allocate: u64,
    pub free: u64,
    pub reserve: u64,
    pub create: u64,
    pub map: u64,
    pub set_access: u64,
    pub unmap: u64,
    pub release: u64,
    /// Waits of one stream for another.
    pub wait: u64,
    pub copy: u64,
}

impl DriverCalls {
    /// Calls that take or give memory: all but waits and copies.
    pub fn memory(&self) -> u64 {
        self.allocate + self.free + self.reserve + self.create + self.map + self.set_access + self.unmap + self.release
    }
}

#[derive(Clone, Copy)]
enum Call {
    Allocate,
    Free,
    Reserve,
    Create,
    Map,
    SetAccess,
    Unmap,
    Release,
    Wait,
    Copy,
}

/// A device as the pool's layers see it.
pub(super) struct Device {
    pub provider: Arc<dyn Provider>,
    pub timeline: Timeline,
    counts: [AtomicU64; 10],
    refused: Mutex<Option<Error>>,
}

impl Device {
    pub fn new(provider: Arc<dyn Provider>, timeline: Timeline) -> Self {
        Device { provider, timeline, counts: Default::default(), refused: Mutex::default() }
    }

    pub fn calls(&self) -> DriverCalls {
        let [allocate, free, reserve, create, map, set_access, unmap, release, wait, copy] =
            self.counts.each_ref().map(|c| c.load(Relaxed));
        DriverCalls { allocate, free, reserve, create, map, set_access, unmap, release, wait, copy }
    }

    fn count(&self, call: Call) {
        self.counts[call as usize].fetch_add(1, Relaxed);
    }

    /// The last refusal since this was asked. The pool tries something else then, and tells it only when nothing helps.
    pub fn refusal(&self) -> Option<Error> {
        lock(&self.refused).take()
    }

    fn noted<T>(&self, answer: Result<T>) -> Result<T> {
        answer.inspect_err(|e| *lock(&self.refused) = Some(e.clone()))
    }

    /// Only the granules call what follows, and they exist only where this does.
    fn mapping(&self) -> &dyn Mapping {
        self.provider.mapping().expect("invariant: granules need virtual memory management")
    }

    pub fn allocate(&self, bytes: u64) -> Result<u64> {
        self.count(Call::Allocate);
        let address = self.noted(self.provider.allocate(bytes))?;
        self.timeline.note(EventKind::Map, address, bytes);
        Ok(address)
    }

    pub fn free(&self, address: u64, bytes: u64) {
        self.count(Call::Free);
        self.timeline.note(EventKind::Unmap, address, bytes);
        self.provider.free(address, bytes);
    }

    pub fn reserve(&self, bytes: u64) -> Result<u64> {
        self.count(Call::Reserve);
        self.noted(self.mapping().reserve(bytes))
    }

    pub fn unreserve(&self, address: u64, bytes: u64) {
        self.mapping().unreserve(address, bytes);
    }

    pub fn create(&self, bytes: u64) -> Result<Handle> {
        self.count(Call::Create);
        self.noted(self.mapping().create(bytes))
    }

    pub fn map(&self, address: u64, bytes: u64, handle: Handle) -> Result<()> {
        self.count(Call::Map);
        self.noted(self.mapping().map(address, bytes, handle))?;
        self.timeline.note(EventKind::Map, address, bytes);
        Ok(())
    }

    pub fn set_access(&self, address: u64, bytes: u64) -> Result<()> {
        self.count(Call::SetAccess);
        self.noted(self.mapping().set_access(address, bytes))
    }

    pub fn unmap(&self, address: u64, bytes: u64) -> Result<()> {
        self.count(Call::Unmap);
        self.noted(self.mapping().unmap(address, bytes))?;
        self.timeline.note(EventKind::Unmap, address, bytes);
        Ok(())
    }

    pub fn release(&self, handle: Handle, bytes: u64) {
        self.count(Call::Release);
        self.mapping().release(handle, bytes);
    }

    /// Lets `stream` wait for mark `seq` of `other`; a mark of `stream` behind the wait.
    pub fn wait(&self, stream: StreamId, other: StreamId, seq: u64) -> Result<u64> {
        self.count(Call::Wait);
        self.provider.streams().wait(stream, other, seq)?;
        self.provider.streams().mark(stream)
    }

    pub fn copy(&self, stream: StreamId, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.count(Call::Copy);
        self.provider.copy(stream, from, to, bytes)
    }

    pub fn completed(&self, stream: StreamId) -> u64 {
        self.provider.streams().completed(stream)
    }
}
