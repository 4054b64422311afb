//! What callers and the engine's thread share.

use std::collections::HashMap;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::door::Door;
use super::model::Served;
use super::request::Queued;
use crate::error::Error;
use crate::serve::schedule::{Batching, Key, Rejection, Scheduler};

/// Kinds of requests that a scheduler tells apart; what comes after shares a kind with others of its model and is told apart in batches.
const MAX_KINDS: usize = 4096;

/// All of an engine but its thread and the ways into it.
pub(super) struct Shared {
    pub started: Instant,
    pub state: Door<State>,
}

/// What the lock of an engine guards. It is held for no longer than a decision: not while a model runs, nor while requests are joined.
pub(super) struct State {
    pub scheduler: Scheduler,
    /// Requests by their keys' index.
    waiting: Vec<Option<Queued>>,
    /// The scheduler's number of each kind of request.
    kinds: HashMap<u64, u32>,
    last_kind: Option<(u64, u32)>,
    pub running: usize,
    /// Whoever takes it runs batches until it is put back.
    pub desk: Option<Box<Desk>>,
    /// Who has it.
    pub worker: Option<ThreadId>,
    /// How often callers had it.
    pub served: u64,
    /// Requests that were taken into batches.
    pub taken: u64,
    /// Whether the engine's thread is to look although callers serve themselves.
    pub is_wanted: bool,
    /// How long the last batch ran; at first as long as there is.
    pub took: Duration,
    pub is_stopped: bool,
    latest: Duration,
}

impl Shared {
    pub fn new(batching: &Batching) -> Self {
        let state = State {
            scheduler: Scheduler::new(batching),
            waiting: Vec::new(),
            kinds: HashMap::new(),
            last_kind: None,
            running: 0,
            desk: Some(Box::default()),
            worker: None,
            served: 0,
            taken: 0,
            is_wanted: false,
            took: Duration::MAX,
            is_stopped: false,
            latest: Duration::ZERO,
        };
        Shared { started: Instant::now(), state: Door::new(state) }
    }

    /// Ends it all: what waits is answered with `error`, and nothing more is taken.
    pub fn stop(&self, error: &Error) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        state.scheduler.drain();
        let waiting = std::mem::take(&mut state.waiting);
        self.state.is_idle(&mut state);
        self.state.wake(state);
        waiting.into_iter().flatten().for_each(|pending| pending.fail(error.clone()));
    }

    /// Takes a request out of the queue that nobody wants any more.
    pub fn cancel(&self, key: Key) {
        let mut state = self.state.lock();
        let pending = if state.scheduler.cancel(key) { state.take(key) } else { None };
        drop(state);
        drop(pending);
    }
}

impl State {
    /// Time since the engine's start, which never goes back.
    pub fn now(&mut self, shared: &Shared) -> Duration {
        self.latest = self.latest.max(shared.started.elapsed());
        self.latest
    }

    /// The scheduler's number for a kind of requests.
    pub fn kind(&mut self, kind: u64, model: &Served) -> u32 {
        if let Some((_, number)) = self.last_kind.filter(|(last, _)| *last == kind) {
            return number;
        }
        let is_full = self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind);
        let key = if is_full { u64::from(model.id) } else { kind };
        let next = self.kinds.len() as u32;
        let number = *self.kinds.entry(key).or_insert(next);
        if number == next {
            self.scheduler.weigh_model(model.id, model.weight);
        }
        self.last_kind = Some((kind, number));
        number
    }

    /// Keeps a request until its key is called.
    pub fn keep(&mut self, key: Key, pending: Queued) {
        if self.waiting.len() <= key.index() {
            self.waiting.resize_with(key.index() + 1, || None);
        }
        self.waiting[key.index()] = Some(pending);
    }

    /// The request of a key that the scheduler has let go.
    pub fn take(&mut self, key: Key) -> Option<Queued> {
        self.waiting.get_mut(key.index())?.take()
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.is_stopped || (self.scheduler.depth() == 0 && self.running == 0)
    }

    /// Whether a request may enter at all.
    pub fn admits(&self) -> Result<(), Rejection> {
        if self.is_stopped { Err(Rejection::Draining) } else { Ok(()) }
    }
}
