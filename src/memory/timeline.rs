//! What happened to a pool's memory, last things last: a ring of events.

use std::collections::VecDeque;
use std::time::Instant;

use super::provider::StreamId;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum EventKind {
    /// A block was handed out.
    Alloc,
    /// Its owner let go of it.
    Free,
    /// Memory was taken from the device; no address.
    Grow,
    /// Memory was given back to the device; no address.
    Shrink,
    /// An allocation failed; no address.
    OutOfMemory,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TimelineEvent {
    /// Since the pool was made.
    pub time_us: u64,
    pub kind: EventKind,
    pub address: u64,
    pub bytes: u64,
    pub stream: StreamId,
    /// The account, for blocks.
    pub owner: String,
}

/// The last events, as many as there is room for.
pub(super) struct Timeline {
    start: Instant,
    room: usize,
    events: VecDeque<TimelineEvent>,
}

impl Timeline {
    pub fn new(room: usize) -> Self {
        Timeline { start: Instant::now(), room, events: VecDeque::new() }
    }

    pub fn record(&mut self, kind: EventKind, address: u64, bytes: u64, stream: StreamId, owner: &str) {
        if self.room == 0 {
            return;
        }
        if self.events.len() == self.room {
            self.events.pop_front();
        }
        let time_us = self.start.elapsed().as_micros() as u64;
        self.events.push_back(TimelineEvent { time_us, kind, address, bytes, stream, owner: owner.into() });
    }

    pub fn events(&self) -> Vec<TimelineEvent> {
        self.events.iter().cloned().collect()
    }
}
