//! The cache of results: two levels, and one computation for all equal requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::first::First;
use super::flight::{Boarding, Flight, Flights};
use super::queue::after;
use super::second::{Found, SecondLevel};
use super::{Answer, Digest, Failure, Options, Outcome, Stats, Waiter};
use crate::error::{Error, Result};

#[derive(Default)]
struct Counters {
    first_hits: AtomicU64,
    second_hits: AtomicU64,
    misses: AtomicU64,
    joins: AtomicU64,
    kept: AtomicU64,
    too_large: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    abandoned: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

struct Shared<E> {
    first: First,
    flights: Flights<E>,
    second: Option<SecondLevel>,
    ttl: Option<Duration>,
    capacity_bytes: u64,
    count: Counters,
}

/// A cache of results. Clones share it. `E` is the error of computations.
pub struct Cache<E = Error>(Arc<Shared<E>>);

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Cache(self.0.clone())
    }
}

/// What becomes of a request.
pub enum Begin<E: Clone> {
    /// It is answered.
    Hit(Answer),
    /// It computes, and others wait for it.
    Lead(Lead<E>),
    /// It waits for an equal one.
    Follow(Waiter<E>),
}

/// What the second level says to a request that leads.
pub enum Fetched<E: Clone> {
    /// It is answered, and so are those that follow.
    Hit(Answer),
    /// It computes.
    Lead(Lead<E>),
}

impl<E: Clone + Send + Sync + 'static> Cache<E> {
    /// An empty cache. Errors when the address of the second level cannot be read; its server need not be there yet.
    pub fn new(options: Options) -> Result<Self> {
        Ok(Cache(Arc::new(Shared {
            first: First::new(&options),
            flights: Flights::new(),
            ttl: options.ttl,
            capacity_bytes: options.capacity_bytes,
            count: Counters::default(),
            second: options.second.map(SecondLevel::start).transpose()?,
        })))
    }

    /// The answer for `key`: from this process, from an equal request under way, from Redis or from `compute`. Blocks; waits for an equal
    /// request until `deadline`, for Redis no longer than its budget. A panic of `compute` becomes an error.
    pub fn answer(&self, key: Digest, deadline: Option<Instant>, compute: impl FnOnce() -> Result<Answer, E>) -> Outcome<E> {
        loop {
            match self.begin(key) {
                Begin::Hit(reply) => return Ok(reply),
                Begin::Follow(waiter) => match waiter.wait(deadline) {
                    Err(Failure::Abandoned) => {}
                    outcome => return outcome,
                },
                Begin::Lead(lead) => match lead.fetch_within(deadline) {
                    Fetched::Hit(reply) => return Ok(reply),
                    Fetched::Lead(lead) => return lead.compute(compute),
                },
            }
        }
    }

    /// Looks in this process and among the requests under way; never blocks. One that leads asks the second level by [`Lead::fetch`].
    pub fn begin(&self, key: Digest) -> Begin<E> {
        let Shared { first, flights, count, .. } = &*self.0;
        let boarding = match first.find(&key) {
            Some(reply) => Boarding::Known(reply),
            None => flights.board(key, || first.find(&key)),
        };
        match boarding {
            Boarding::Known(reply) => {
                add(&count.first_hits);
                Begin::Hit(reply)
            }
            Boarding::Follows(flight) => {
                add(&count.joins);
                Begin::Follow(Waiter::new(flight))
            }
            Boarding::Leads(flight) => Begin::Lead(Lead { key, cache: self.clone(), flight: Some(flight), fetched: false }),
        }
    }

    /// Forgets the answers in this process; those in Redis stay. A model of other weights has other keys and needs none of this.
    pub fn clear(&self) {
        self.0.first.clear();
    }

    /// Waits until what was computed is stored in Redis, or for `timeout`. Whether it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.second.as_ref().is_none_or(|second| second.flush(after(timeout)))
    }

    /// Its figures.
    pub fn stats(&self) -> Stats {
        let Shared { first, flights, second, count, capacity_bytes, .. } = &*self.0;
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let (entries, bytes) = first.usage();
        Stats {
            first_hits: of(&count.first_hits),
            second_hits: of(&count.second_hits),
            misses: of(&count.misses),
            joins: of(&count.joins),
            under_way: flights.len(),
            kept: of(&count.kept),
            too_large: of(&count.too_large),
            evicted: of(&first.removed.evicted),
            evicted_bytes: of(&first.removed.evicted_bytes),
            expired: of(&first.removed.expired),
            failed: of(&count.failed),
            panicked: of(&count.panicked),
            abandoned: of(&count.abandoned),
            entries,
            bytes,
            capacity_bytes: *capacity_bytes,
            second: second.as_ref().map(SecondLevel::stats),
        }
    }

    fn keep(&self, key: Digest, reply: &Answer, until: Option<Instant>) {
        let kept = self.0.first.keep(key, reply.clone(), until);
        add(if kept { &self.0.count.kept } else { &self.0.count.too_large });
    }
}

/// The duty to answer a request and those that follow it. Dropping it gives the request up: those that follow begin again, and one of
/// them leads.
pub struct Lead<E: Clone> {
    key: Digest,
    cache: Cache<E>,
    /// None once it has landed.
    flight: Option<Arc<Flight<E>>>,
    /// Whether the second level had its say.
    fetched: bool,
}

impl<E: Clone + Send + Sync + 'static> Lead<E> {
    /// The key of the request.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// Asks the second level without blocking. `then` runs once: at once on this thread where there is no second level, it is left alone
    /// or too many wait for it, else on its thread within twice its budget. `then` should be short.
    pub fn fetch(self, then: impl FnOnce(Fetched<E>) + Send + 'static) {
        let cache = self.cache.clone();
        match &cache.0.second {
            Some(second) if !self.fetched => second.look_up(self.key, move |found| then(self.fetched(found))),
            _ => then(Fetched::Lead(self)),
        }
    }

    /// Asks the second level and waits for its budget at most, and not beyond `deadline`.
    pub fn fetch_within(self, deadline: Option<Instant>) -> Fetched<E> {
        let second = self.cache.0.second.as_ref().filter(|_| !self.fetched);
        let found = second.and_then(|second| second.look_up_within(self.key, deadline));
        self.fetched(found)
    }

    fn fetched(mut self, found: Option<Found>) -> Fetched<E> {
        self.fetched = true;
        match found {
            None => Fetched::Lead(self),
            Some((reply, until)) => {
                add(&self.cache.0.count.second_hits);
                self.cache.keep(self.key, &reply, until);
                self.land(Ok(reply.clone()));
                Fetched::Hit(reply)
            }
        }
    }

    /// Computes here and now; a panic becomes an error.
    pub fn compute(self, compute: impl FnOnce() -> Result<Answer, E>) -> Outcome<E> {
        match catch_unwind(AssertUnwindSafe(compute)) {
            Ok(Ok(reply)) => Ok(self.publish(reply)),
            Ok(Err(error)) => {
                self.fail(error.clone());
                Err(Failure::Failed(error))
            }
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                self.panicked(text.clone());
                Err(Failure::Panicked(text))
            }
        }
    }

    /// Keeps an answer and gives it to all who follow. What is returned is what they get.
    pub fn publish(mut self, reply: Answer) -> Answer {
        let shared = &self.cache.0;
        add(&shared.count.misses);
        let reply = reply.detached();
        self.cache.keep(self.key, &reply, shared.ttl.map(after));
        self.land(Ok(reply.clone()));
        if let Some(second) = &self.cache.0.second {
            second.store(self.key, &reply, self.cache.0.ttl);
        }
        reply
    }

    /// Gives an error to all who follow. It is not kept. Errors of this request alone (its deadline, its caller's limits) are no reason
    /// to fail others: [`Lead::abandon`].
    pub fn fail(mut self, error: E) {
        add(&self.cache.0.count.misses);
        add(&self.cache.0.count.failed);
        self.land(Err(Failure::Failed(error)));
    }

    /// Tells all who follow that the computation panicked.
    pub fn panicked(mut self, text: String) {
        add(&self.cache.0.count.misses);
        add(&self.cache.0.count.panicked);
        self.land(Err(Failure::Panicked(text)));
    }

    /// Gives the request up: those that follow get [`Failure::Abandoned`] and begin again.
    pub fn abandon(self) {}
}

impl<E: Clone> Lead<E> {
    fn land(&mut self, outcome: Outcome<E>) {
        if let Some(flight) = self.flight.take() {
            self.cache.0.flights.remove(&self.key);
            flight.land(outcome);
        }
    }
}

impl<E: Clone> Drop for Lead<E> {
    fn drop(&mut self) {
        if self.flight.is_none() {
            return;
        }
        let (counter, failure) = match std::thread::panicking() {
            true => (&self.cache.0.count.panicked, Failure::Panicked(String::new())),
            false => (&self.cache.0.count.abandoned, Failure::Abandoned),
        };
        add(counter);
        self.land(Err(failure));
    }
}
