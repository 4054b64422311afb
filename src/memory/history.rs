//! What a pool held over time, by owner: its timeline added up, for plots.

use std::collections::BTreeMap;

use super::snapshot::Snapshot;
use super::timeline::{EventKind, TimelineEvent};

/// A pool over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Accounts, those that held the most at any time first.
    pub owners: Vec<String>,
    /// Time in equal parts, in order.
    pub columns: Vec<Column>,
    /// How long a column is.
    pub column_us: u64,
    /// Allocations that failed.
    pub failures: Vec<TimelineEvent>,
}

/// What was held in a part of the time, at its highest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Column {
    /// Since the pool was made.
    pub time_us: u64,
    /// Of each owner, when most bytes were live in all.
    pub live_bytes: Vec<u64>,
    /// The most that were taken from the device.
    pub reserved_bytes: u64,
}

impl Column {
    /// Of all owners.
    pub fn total_bytes(&self) -> u64 {
        total(&self.live_bytes)
    }
}

fn total(live_bytes: &[u64]) -> u64 {
    live_bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

impl History {
    /// From the first event that the snapshot has to the snapshot, in at most `columns` parts.
    pub fn new(snapshot: &Snapshot, columns: usize) -> Self {
        let events = &snapshot.timeline;
        let start_us = events.first().map_or(snapshot.time_us, |e| e.time_us);
        let span_us = snapshot.time_us.max(events.last().map_or(0, |e| e.time_us)).saturating_sub(start_us);
        let column_us = span_us / columns.max(1) as u64 + 1;
        let mut owners = indices(snapshot);
        let mut now = State::before(snapshot, &owners);
        let mut rest = events.iter().peekable();
        let column = |i: u64| {
            let (end_us, mut highest) = (start_us + (i + 1) * column_us, now.clone());
            while let Some(event) = rest.next_if(|e| e.time_us < end_us) {
                now.apply(event, &owners);
                highest.raise(&now);
            }
            let State { live_bytes, reserved_bytes } = highest;
            Column { time_us: start_us + i * column_us, live_bytes, reserved_bytes }
        };
        let mut columns: Vec<Column> = (0..=span_us / column_us).map(column).collect();
        let names = sort_by_peak(&mut owners, &mut columns);
        let failures = events.iter().filter(|e| e.kind == EventKind::OutOfMemory).cloned().collect();
        History { owners: names, columns, column_us, failures }
    }
}

/// Owners of blocks, then and now.
fn indices(snapshot: &Snapshot) -> BTreeMap<&str, usize> {
    let then = snapshot.timeline.iter().filter(|e| matches!(e.kind, EventKind::Alloc | EventKind::Free));
    let names = snapshot.owners.iter().map(|o| o.account.as_str()).chain(then.map(|e| e.owner.as_str()));
    let mut indices: BTreeMap<&str, usize> = names.map(|name| (name, 0)).collect();
    indices.values_mut().enumerate().for_each(|(i, index)| *index = i);
    indices
}

/// Puts the owners of each column in the order of what they held at most; their names in that order.
fn sort_by_peak(owners: &mut BTreeMap<&str, usize>, columns: &mut [Column]) -> Vec<String> {
    let peak = |&i: &usize| columns.iter().map(|c| c.live_bytes[i]).max();
    let mut order: Vec<(&str, usize)> = std::mem::take(owners).into_iter().collect();
    order.sort_by_key(|(_, i)| std::cmp::Reverse(peak(i)));
    for column in columns {
        column.live_bytes = order.iter().map(|(_, i)| column.live_bytes[*i]).collect();
    }
    order.into_iter().map(|(name, _)| name.into()).collect()
}

/// What is held at one moment.
#[derive(Clone)]
struct State {
    live_bytes: Vec<u64>,
    reserved_bytes: u64,
}

impl State {
    /// Before the snapshot's first event: what is held now, less what came since.
    fn before(snapshot: &Snapshot, owners: &BTreeMap<&str, usize>) -> Self {
        let mut state = State { live_bytes: vec![0; owners.len()], reserved_bytes: snapshot.stats.reserved_bytes };
        snapshot.owners.iter().for_each(|o| state.live_bytes[owners[o.account.as_str()]] = o.live_bytes);
        for event in snapshot.timeline.iter().rev() {
            let kind = match event.kind {
                EventKind::Alloc => EventKind::Free,
                EventKind::Free => EventKind::Alloc,
                EventKind::Grow => EventKind::Shrink,
                EventKind::Shrink => EventKind::Grow,
                other => other,
            };
            state.change(kind, event, owners);
        }
        state
    }

    fn apply(&mut self, event: &TimelineEvent, owners: &BTreeMap<&str, usize>) {
        self.change(event.kind, event, owners);
    }

    /// A file may tell anything: nothing overflows.
    fn change(&mut self, kind: EventKind, event: &TimelineEvent, owners: &BTreeMap<&str, usize>) {
        let live = |state: &mut Self, by: fn(u64, u64) -> u64| {
            let bytes = &mut state.live_bytes[owners[event.owner.as_str()]];
            *bytes = by(*bytes, event.bytes);
        };
        match kind {
            EventKind::Alloc => live(self, u64::saturating_add),
            EventKind::Free => live(self, u64::saturating_sub),
            EventKind::Grow => self.reserved_bytes = self.reserved_bytes.saturating_add(event.bytes),
            EventKind::Shrink => self.reserved_bytes = self.reserved_bytes.saturating_sub(event.bytes),
            EventKind::Map | EventKind::Unmap | EventKind::OutOfMemory => {}
        }
    }

    /// The higher of both.
    fn raise(&mut self, other: &State) {
        if total(&other.live_bytes) > total(&self.live_bytes) {
            self.live_bytes.clone_from(&other.live_bytes);
        }
        self.reserved_bytes = self.reserved_bytes.max(other.reserved_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Owner, Stats, StreamId};

    fn event(time_us: u64, kind: EventKind, bytes: u64, owner: &str) -> TimelineEvent {
        TimelineEvent { time_us, kind, address: 0, bytes, stream: StreamId(0), owner: owner.into() }
    }

    fn snapshot(time_us: u64, reserved_bytes: u64, live: &[(&str, u64)], timeline: Vec<TimelineEvent>) -> Snapshot {
        let owner = |&(account, live_bytes): &(&str, u64)| Owner { account: account.into(), live_bytes, blocks: 1 };
        Snapshot {
            device: "hand-made".into(),
            time_us,
            stats: Stats { reserved_bytes, ..Stats::default() },
            segments: Vec::new(),
            owners: live.iter().map(owner).collect(),
            accounts: Vec::new(),
            timeline,
            dropped_events: 0,
        }
    }

    fn rows(history: &History) -> Vec<(u64, Vec<u64>, u64)> {
        history.columns.iter().map(|c| (c.time_us, c.live_bytes.clone(), c.reserved_bytes)).collect()
    }

    use EventKind::*;

    #[test]
    fn what_was_held_is_added_up_from_what_is_held_now() {
        let timeline = vec![
            event(100, Grow, 64, ""),
            event(100, Alloc, 10, "a"),
            event(101, Alloc, 30, "b"),
            event(102, Free, 5, "a"),
            event(103, Shrink, 32, ""),
            event(103, Free, 30, "b"),
            event(103, OutOfMemory, 999, "b"),
        ];
        // 7 bytes of `a` are older than the first event, 12 are left; 100 were reserved before.
        let history = History::new(&snapshot(104, 132, &[("a", 12)], timeline), 100);
        assert_eq!((&history.owners[..], history.column_us), (&["b".to_string(), "a".into()][..], 1));
        let expected = [
            (100, vec![0, 17], 164),
            (101, vec![30, 17], 164),
            (102, vec![30, 17], 164),
            (103, vec![30, 12], 164),
            (104, vec![0, 12], 132),
        ];
        assert_eq!(rows(&history), expected);
        assert_eq!(history.failures.iter().map(|e| (e.time_us, e.bytes)).collect::<Vec<_>>(), [(103, 999)]);
    }

    #[test]
    fn a_peak_is_never_lost_however_few_the_columns() {
        let blip = |t| [event(t, Alloc, 50, "a"), event(t, Free, 50, "a")];
        let timeline: Vec<_> = [0, 10, 999].into_iter().flat_map(blip).chain([event(1000, Alloc, 1, "a")]).collect();
        for columns in 1..30 {
            let history = History::new(&snapshot(2000, 0, &[("a", 1)], timeline.clone()), columns);
            assert!(history.columns.len() <= columns && history.columns[0].total_bytes() == 50, "{columns}: {history:?}");
            assert_eq!(history.columns.last().unwrap().total_bytes(), if columns == 1 { 50 } else { 1 });
        }
    }

    #[test]
    fn files_that_contradict_themselves_overflow_nothing() {
        let odd = vec![event(5, Free, u64::MAX, "a"), event(3, Alloc, u64::MAX, "b"), event(4, Shrink, u64::MAX, "")];
        let history = History::new(&snapshot(0, 7, &[("a", u64::MAX), ("c", u64::MAX)], odd), 0);
        assert!(history.columns.len() == 1 && history.owners.len() == 3, "{history:?}");
        let empty = History::new(&snapshot(9, 7, &[], vec![]), 10);
        assert_eq!(rows(&empty), [(9, vec![], 7)]);
    }
}
