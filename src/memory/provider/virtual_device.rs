//! A device that only counts: for simulation, traces and tests. It refuses what a driver would refuse.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::software::SoftwareStreams;
use super::{Handle, Mapping, Provider, StreamId, Streams};
use crate::base::lock;
use crate::error::{Error, Result};

/// Reservations start here and lie apart, so that none touches another.
const FIRST_ADDRESS: u64 = 1 << 32;
const GAP: u64 = 1 << 32;

#[derive(Default)]
struct State {
    used: u64,
    peak: u64,
    next: u64,
    /// Reservations and slabs, by address.
    ranges: BTreeMap<u64, u64>,
    /// Mapped handles, by address: bytes, handle.
    mapped: BTreeMap<u64, (u64, Handle)>,
    handles: HashMap<Handle, Physical>,
}

/// The memory of a handle: taken until it is released and mapped nowhere.
struct Physical {
    bytes: u64,
    maps: u32,
    is_held: bool,
}

/// Memory that is a number.
pub struct VirtualDevice {
    capacity: u64,
    granularity: Option<u64>,
    streams: SoftwareStreams,
    state: Mutex<State>,
}

fn refused(why: impl Into<String>) -> Error {
    Error::Device { device: "virtual".into(), why: why.into() }
}

impl VirtualDevice {
    /// A device of `capacity` bytes with virtual memory management of this granularity, or with slabs alone.
    pub fn new(capacity: u64, granularity: Option<u64>, streams: SoftwareStreams) -> Self {
        VirtualDevice { capacity, granularity, streams, state: Mutex::default() }
    }

    /// Bytes taken now, and the most that ever were.
    pub fn used_bytes(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.used, state.peak)
    }

    /// Its streams, to submit work to.
    pub fn software(&self) -> &SoftwareStreams {
        &self.streams
    }

    /// The physical memory behind a range: pieces of (handle or slab, offset in it, bytes). `None` when any byte has none.
    pub fn translate(&self, address: u64, bytes: u64) -> Option<Vec<(u64, u64, u64)>> {
        let state = lock(&self.state);
        if self.granularity.is_none() {
            let (&slab, length) = state.ranges.range(..=address).next_back()?;
            return (address + bytes <= slab + length).then(|| vec![(slab, address - slab, bytes)]);
        }
        let (mut at, end, mut pieces) = (address, address + bytes, Vec::new());
        while at < end {
            let (&start, &(length, handle)) = state.mapped.range(..=at).next_back()?;
            let piece = (start + length).min(end).checked_sub(at).filter(|&p| p > 0)?;
            pieces.push((handle, at - start, piece));
            at += piece;
        }
        Some(pieces)
    }

    /// Counts a slab, or a reservation that is `free`, at an address of the caller's.
    pub(super) fn place(&self, address: u64, bytes: u64, free: bool) -> Result<()> {
        let mut state = lock(&self.state);
        if !free {
            self.take(&mut state, bytes)?;
        }
        state.ranges.insert(address, bytes);
        Ok(())
    }

    fn take(&self, state: &mut State, bytes: u64) -> Result<u64> {
        let available_bytes = self.capacity - state.used;
        if bytes > available_bytes {
            return Err(Error::OutOfMemory { device: "virtual".into(), needed_bytes: bytes, available_bytes });
        }
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        state.next += 1;
        Ok(state.next)
    }
}

impl State {
    /// Changes a handle, and gives its memory back where nothing has it any more.
    fn change(&mut self, handle: Handle, how: impl FnOnce(&mut Physical)) {
        let Some(physical) = self.handles.get_mut(&handle) else { return };
        how(physical);
        let Physical { bytes, maps, is_held } = *physical;
        if !is_held && maps == 0 {
            self.handles.remove(&handle);
            self.used -= bytes;
        }
    }

    fn range(&mut self, bytes: u64) -> u64 {
        let end = self.ranges.last_key_value().map_or(FIRST_ADDRESS, |(a, b)| (a + b).next_multiple_of(GAP) + GAP);
        self.ranges.insert(end, bytes);
        end
    }
}

impl Provider for VirtualDevice {
    fn name(&self) -> &str {
        "virtual"
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        let mut state = lock(&self.state);
        self.take(&mut state, bytes)?;
        Ok(state.range(bytes))
    }

    fn free(&self, address: u64, _: u64) {
        let mut state = lock(&self.state);
        state.used -= state.ranges.remove(&address).unwrap_or(0);
    }

    fn mapping(&self) -> Option<&dyn Mapping> {
        self.granularity.map(|_| self as &dyn Mapping)
    }

    fn streams(&self) -> &dyn Streams {
        &self.streams
    }

    fn copy(&self, stream: StreamId, _: u64, _: u64, _: u64) -> Result<()> {
        self.streams.submit(stream, || {});
        Ok(())
    }
}

impl Mapping for VirtualDevice {
    fn granularity_bytes(&self) -> u64 {
        self.granularity.unwrap_or(1)
    }

    fn reserve(&self, bytes: u64) -> Result<u64> {
        Ok(lock(&self.state).range(bytes))
    }

    fn unreserve(&self, address: u64, _: u64) {
        lock(&self.state).ranges.remove(&address);
    }

    fn create(&self, bytes: u64) -> Result<Handle> {
        let mut state = lock(&self.state);
        let handle = self.take(&mut state, bytes)?;
        state.handles.insert(handle, Physical { bytes, maps: 0, is_held: true });
        Ok(handle)
    }

    fn map(&self, address: u64, bytes: u64, handle: Handle) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.handles.get(&handle).is_some_and(|h| h.is_held && h.bytes == bytes) {
            return Err(refused("a handle is mapped whole"));
        }
        let inside = state.ranges.range(..=address).next_back().is_some_and(|(a, b)| address + bytes <= a + b);
        let before = state.mapped.range(..address + bytes).next_back();
        if !inside || before.is_some_and(|(a, (b, _))| a + b > address) {
            return Err(refused("not reserved, or mapped already"));
        }
        state.mapped.insert(address, (bytes, handle));
        state.change(handle, |h| h.maps += 1);
        Ok(())
    }

    fn set_access(&self, address: u64, bytes: u64) -> Result<()> {
        let covered: u64 = lock(&self.state).mapped.range(address..address + bytes).map(|(_, (b, _))| b).sum();
        if covered == bytes { Ok(()) } else { Err(refused("access to what is not mapped")) }
    }

    fn unmap(&self, address: u64, bytes: u64) -> Result<()> {
        let mut state = lock(&self.state);
        let whole: Vec<(u64, u64)> = state.mapped.range(address..address + bytes).map(|(&a, &(b, _))| (a, b)).collect();
        if whole.iter().map(|h| h.1).sum::<u64>() != bytes {
            return Err(refused("only whole handles are unmapped"));
        }
        for (at, _) in whole {
            if let Some((_, handle)) = state.mapped.remove(&at) {
                state.change(handle, |h| h.maps -= 1);
            }
        }
        Ok(())
    }

    fn release(&self, handle: Handle, _: u64) {
        lock(&self.state).change(handle, |h| h.is_held = false);
    }
}
