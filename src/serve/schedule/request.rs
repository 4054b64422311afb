//! What goes into a scheduler and what comes out of it.

use std::time::Duration;

/// A request as the scheduler sees it: all but its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Request {
    /// The model that answers it; batches hold requests of one model, which has one share of the device.
    pub model: u32,
    /// Tells apart requests of a model that cannot be in one batch, as those of unequal shapes: each kind's latency is learned apart.
    pub kind: u32,
    /// On whose behalf: tenants share a model by their weights.
    pub tenant: u32,
    /// Its class: 0 goes first.
    pub priority: u8,
    /// When its answer is due, since the scheduler's start.
    pub deadline: Duration,
    /// Rows that it takes of a batch: 1 and more.
    pub rows: u32,
    /// Length of a row (tokens, samples): shorter rows of a batch are padded to the longest. The same for all where nothing is padded.
    pub length: u32,
}

impl Default for Request {
    fn default() -> Self {
        Request { model: 0, kind: 0, tenant: 0, priority: 0, deadline: Duration::MAX, rows: 1, length: 1 }
    }
}

/// Names a request from its admission until it runs, is expelled or is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u64);

impl Key {
    /// An index below the largest number of requests that ever waited at once, of this request alone while it waits: payloads may lie in an array.
    pub fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// Why a request is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[allow(missing_docs)]
pub enum Rejection {
    /// As many wait as may.
    #[error("{limit} requests wait already, which is the limit; retry later or raise queue_limit")]
    QueueFull { limit: usize },
    /// Its deadline cannot be met: with what goes before it, it would take longer than is left.
    #[error("the answer would take {needed:?} and is due in {left:?}; retry later or with a later deadline")]
    TooLate { needed: Duration, left: Duration },
    /// The scheduler finishes what it has and takes nothing more.
    #[error("the scheduler is draining and takes no more requests")]
    Draining,
    /// It has more rows than a batch may have.
    #[error("a request of {rows} rows is larger than a batch of at most {max}; split it or raise max_batch")]
    TooLarge { rows: u32, max: usize },
    /// It has no rows.
    #[error("a request of no rows has no answer; send at least one")]
    Empty,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Run the batch.
    Run,
    /// Ask again at this time since the start, or when something was offered, whichever is earlier.
    Wait(Duration),
    /// Nothing waits.
    Idle,
}

/// Requests to run together. Reused from step to step, so that nothing is allocated once it is warm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The model of them all.
    pub model: u32,
    /// Their kind.
    pub kind: u32,
    /// The requests, each with its rows, in this order.
    pub keys: Vec<Key>,
    /// Rows of them all.
    pub rows: u32,
    /// The longest row's length: what shorter ones are padded to.
    pub length: u32,
    /// What the latency model expects the batch to take; zero as long as it knows nothing.
    pub expected: Duration,
    /// Requests that left the queue at this step without being run, and why: also when nothing is to run.
    pub expelled: Vec<(Key, Rejection)>,
}

impl Batch {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.expelled.clear();
        (self.rows, self.length, self.expected) = (0, 0, Duration::ZERO);
    }
}
