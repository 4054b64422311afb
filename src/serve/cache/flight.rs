//! Computations under way, one for each key: the first request leads, equal ones follow and get what it gets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::{Answer, Digest};
use crate::base::lock;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure<E> {
    /// The computation gave an error. It is not kept: the next request computes again.
    #[error("{0}")]
    Failed(E),
    /// The computation panicked.
    #[error("the computation panicked: {0}")]
    Panicked(String),
    /// The leading request was given up, for a reason that says nothing about this one: begin again.
    #[error("the request that computed this answer was given up; ask again")]
    Abandoned,
    /// The request's own deadline passed while it waited for another's computation.
    #[error("the deadline passed while an equal request was being computed")]
    Late,
}

/// What becomes of a request.
pub type Outcome<E> = Result<Answer, Failure<E>>;

type Callback<E> = Box<dyn FnOnce(Outcome<E>) + Send>;

struct State<E> {
    outcome: Option<Outcome<E>>,
    wakers: Vec<Waker>,
    callbacks: Vec<Callback<E>>,
}

/// One computation under way.
pub(super) struct Flight<E> {
    state: Mutex<State<E>>,
    landed: Condvar,
}

impl<E: Clone> Flight<E> {
    fn new() -> Self {
        let state = State { outcome: None, wakers: Vec::new(), callbacks: Vec::new() };
        Flight { state: Mutex::new(state), landed: Condvar::new() }
    }

    /// Tells all who wait. Only the first outcome counts.
    pub(super) fn land(&self, outcome: Outcome<E>) {
        let mut state = lock(&self.state);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome.clone());
        let (wakers, callbacks) = (std::mem::take(&mut state.wakers), std::mem::take(&mut state.callbacks));
        drop(state);
        self.landed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
        for callback in callbacks {
            // One that panics keeps no other from its answer.
            let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome.clone())));
        }
    }
}

/// A request that waits for an equal one, in whichever way suits: [`Waiter::wait`], [`Waiter::then`] or `.await`.
pub struct Waiter<E> {
    flight: Arc<Flight<E>>,
    /// Place of its waker.
    waker: Option<usize>,
}

impl<E: Clone> Waiter<E> {
    pub(super) fn new(flight: Arc<Flight<E>>) -> Self {
        Waiter { flight, waker: None }
    }

    /// Blocks until the answer is there or `deadline` has passed.
    pub fn wait(&self, deadline: Option<Instant>) -> Outcome<E> {
        let mut state = lock(&self.flight.state);
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                None => self.flight.landed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(left) if left.is_zero() => return Err(Failure::Late),
                Some(left) => self.flight.landed.wait_timeout(state, left).unwrap_or_else(|p| p.into_inner()).0,
            };
        }
    }

    /// The answer, if it is there.
    pub fn outcome(&self) -> Option<Outcome<E>> {
        lock(&self.flight.state).outcome.clone()
    }

    /// Hands the answer to `callback`: at once if it is there, else on the thread that computes it. `callback` should be short.
    pub fn then(self, callback: impl FnOnce(Outcome<E>) + Send + 'static) {
        let mut state = lock(&self.flight.state);
        match state.outcome.clone() {
            None => state.callbacks.push(Box::new(callback)),
            Some(outcome) => {
                drop(state);
                callback(outcome);
            }
        }
    }
}

impl<E: Clone> Future for Waiter<E> {
    type Output = Outcome<E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<E>> {
        let this = self.get_mut();
        let mut state = lock(&this.flight.state);
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        match this.waker {
            Some(place) => state.wakers[place].clone_from(context.waker()),
            None => {
                this.waker = Some(state.wakers.len());
                state.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

const SHARDS: usize = 16;

/// All computations under way.
pub(super) struct Flights<E>([Mutex<HashMap<Digest, Arc<Flight<E>>>>; SHARDS]);

/// Whether a request leads or follows.
pub(super) enum Boarding<E> {
    Known(Answer),
    Leads(Arc<Flight<E>>),
    Follows(Arc<Flight<E>>),
}

impl<E: Clone> Flights<E> {
    pub(super) fn new() -> Self {
        Flights(std::array::from_fn(|_| Mutex::default()))
    }

    fn shard(&self, key: &Digest) -> &Mutex<HashMap<Digest, Arc<Flight<E>>>> {
        &self.0[usize::from(key.0[0]) % SHARDS]
    }

    /// Joins the computation of `key`, or begins it when `known` has no answer: answers are kept before their flight is removed, so a
    /// second look under the lock sees every one that was computed until now.
    pub(super) fn board(&self, key: Digest, known: impl FnOnce() -> Option<Answer>) -> Boarding<E> {
        match lock(self.shard(&key)).entry(key) {
            Entry::Occupied(flight) => Boarding::Follows(flight.get().clone()),
            Entry::Vacant(place) => match known() {
                Some(reply) => Boarding::Known(reply),
                None => Boarding::Leads(place.insert(Arc::new(Flight::new())).clone()),
            },
        }
    }

    /// Forgets the computation of `key`: requests from here on do not join it.
    pub(super) fn remove(&self, key: &Digest) {
        lock(self.shard(key)).remove(key);
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).len()).sum()
    }
}
