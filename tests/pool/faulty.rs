//! A device whose driver lies, to show that the tests would see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use halfbyte::memory::provider::{Handle, Mapping, Provider, StreamId, Streams};
use halfbyte::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// Work counts as done as soon as it is submitted: no event guards reuse or unmapping.
    DoneEarly,
    /// One stream does not wait for another.
    NoWait,
    /// Every 50th map puts the handle of the map before there.
    MapTwice,
    /// Every 7th call that takes, maps or unmaps memory is refused: nothing may be lost by that.
    Refuses,
    /// Access is never set.
    NoAccess,
}

pub struct Faulty<P> {
    pub inner: Arc<P>,
    pub fault: Fault,
    marked: [AtomicU64; 8],
    calls: AtomicU64,
    last: AtomicU64,
}

impl<P: Provider> Faulty<P> {
    pub fn new(inner: Arc<P>, fault: Fault) -> Self {
        Faulty { inner, fault, marked: Default::default(), calls: Default::default(), last: Default::default() }
    }

    fn every(&self, n: u64) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % n == n - 1
    }

    fn refused(&self) -> Result<()> {
        let no = Error::Device { device: "faulty".into(), why: "refused".into() };
        if self.fault == Fault::Refuses && self.every(7) { Err(no) } else { Ok(()) }
    }

    fn mapping(&self) -> &dyn Mapping {
        self.inner.mapping().unwrap()
    }
}

impl<P: Provider> Provider for Faulty<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn capacity_bytes(&self) -> u64 {
        self.inner.capacity_bytes()
    }
    fn allocate(&self, bytes: u64) -> Result<u64> {
        self.refused()?;
        self.inner.allocate(bytes)
    }
    fn free(&self, address: u64, bytes: u64) {
        self.inner.free(address, bytes);
    }
    fn mapping(&self) -> Option<&dyn Mapping> {
        self.inner.mapping().map(|_| self as &dyn Mapping)
    }
    fn streams(&self) -> &dyn Streams {
        self
    }
    fn copy(&self, stream: StreamId, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.inner.copy(stream, from, to, bytes)
    }
}

impl<P: Provider> Streams for Faulty<P> {
    fn mark(&self, stream: StreamId) -> Result<u64> {
        let seq = self.inner.streams().mark(stream)?;
        self.marked[usize::from(stream.0)].store(seq, Ordering::Relaxed);
        Ok(seq)
    }
    fn completed(&self, stream: StreamId) -> u64 {
        match self.fault {
            Fault::DoneEarly => self.marked[usize::from(stream.0)].load(Ordering::Relaxed),
            _ => self.inner.streams().completed(stream),
        }
    }
    fn wait(&self, stream: StreamId, other: StreamId, seq: u64) -> Result<()> {
        match self.fault {
            Fault::NoWait => Ok(()),
            _ => self.inner.streams().wait(stream, other, seq),
        }
    }
    fn wait_host(&self, stream: StreamId, seq: u64, timeout: Duration) -> Result<bool> {
        match self.fault {
            Fault::DoneEarly => Ok(true),
            _ => self.inner.streams().wait_host(stream, seq, timeout),
        }
    }
}

impl<P: Provider> Mapping for Faulty<P> {
    fn granularity_bytes(&self) -> u64 {
        self.mapping().granularity_bytes()
    }
    fn reserve(&self, bytes: u64) -> Result<u64> {
        self.mapping().reserve(bytes)
    }
    fn unreserve(&self, address: u64, bytes: u64) {
        self.mapping().unreserve(address, bytes);
    }
    fn create(&self, bytes: u64) -> Result<Handle> {
        self.refused()?;
        self.mapping().create(bytes)
    }
    fn map(&self, address: u64, bytes: u64, handle: Handle) -> Result<()> {
        self.refused()?;
        let last = self.last.swap(handle, Ordering::Relaxed);
        let twice = self.fault == Fault::MapTwice && self.every(50);
        // The handle before may be of another size; the right one is mapped then.
        if twice && self.mapping().map(address, bytes, last).is_ok() {
            return Ok(());
        }
        self.mapping().map(address, bytes, handle)
    }
    fn set_access(&self, address: u64, bytes: u64) -> Result<()> {
        self.refused()?;
        if self.fault == Fault::NoAccess { Ok(()) } else { self.mapping().set_access(address, bytes) }
    }
    fn unmap(&self, address: u64, bytes: u64) -> Result<()> {
        self.refused()?;
        self.mapping().unmap(address, bytes)
    }
    fn release(&self, handle: Handle, bytes: u64) {
        self.mapping().release(handle, bytes);
    }
}
