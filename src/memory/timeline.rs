//! What happened to a pool's memory, last things last: a ring of events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::provider::StreamId;
use crate::base::lock;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum EventKind {
    /// A block was handed out.
    Alloc,
    /// Its owner let go of it.
    Free,
    /// Addresses got memory behind them: a slab, or a mapped handle.
    Map,
    /// They lost it.
    Unmap,
    /// Memory was taken from the device; no address.
    Grow,
    /// Memory was given back to the device; no address.
    Shrink,
    /// An allocation failed; no address.
    OutOfMemory,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

/// The last events, as many as there is room for. Clones are the same timeline.
#[derive(Clone)]
pub(super) struct Timeline(Arc<Ring>);

struct Ring {
    start: Instant,
    room: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<TimelineEvent>,
    dropped: u64,
}

impl Timeline {
    pub fn new(room: usize) -> Self {
        Timeline(Arc::new(Ring { start: Instant::now(), room: room.into(), kept: Mutex::default() }))
    }

    /// Keeps this many events from now on; those kept so far are gone.
    pub fn restart(&self, room: usize) {
        let mut kept = lock(&self.0.kept);
        self.0.room.store(room, Relaxed);
        *kept = Kept::default();
    }

    pub fn is_kept(&self) -> bool {
        self.0.room.load(Relaxed) > 0
    }

    pub fn record(&self, kind: EventKind, address: u64, bytes: u64, stream: StreamId, owner: &str) {
        if !self.is_kept() {
            return;
        }
        let mut kept = lock(&self.0.kept);
        if kept.events.len() >= self.0.room.load(Relaxed) {
            kept.events.pop_front();
            kept.dropped += 1;
        }
        let time_us = self.now_us();
        kept.events.push_back(TimelineEvent { time_us, kind, address, bytes, stream, owner: owner.into() });
    }

    /// An event of the pool as a whole.
    pub fn note(&self, kind: EventKind, address: u64, bytes: u64) {
        self.record(kind, address, bytes, StreamId::default(), "");
    }

    /// Since the pool was made.
    pub fn now_us(&self) -> u64 {
        self.0.start.elapsed().as_micros() as u64
    }

    /// The events, and how many earlier ones there was no room for.
    pub fn events(&self) -> (Vec<TimelineEvent>, u64) {
        let kept = lock(&self.0.kept);
        (kept.events.iter().cloned().collect(), kept.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_stay_and_the_others_are_counted() {
        let timeline = Timeline::new(0);
        timeline.note(EventKind::Grow, 0, 1);
        assert_eq!(timeline.events(), (vec![], 0), "it is off");
        timeline.clone().restart(3);
        (0..5).for_each(|i| timeline.note(EventKind::Grow, 0, i));
        let (events, dropped) = timeline.events();
        assert_eq!((events.iter().map(|e| e.bytes).collect::<Vec<_>>(), dropped), (vec![2, 3, 4], 2));
        assert!(events.is_sorted_by_key(|e| e.time_us) && events[2].time_us <= timeline.now_us());
    }
}
