//! What became of requests for inference, each counted once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedSemaphorePermit;

use super::Failure;
use crate::base::lock;

/// Requests by what became of them: `answered`, a failure's kind, or `gone` for callers that did not wait for an answer.
pub(super) type Outcomes = BTreeMap<&'static str, u64>;

pub(super) const ANSWERED: &str = "answered";

/// Counts of a server.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Outcomes>>);

impl Ledger {
    pub fn count<T>(&self, done: &Result<T, Failure>) {
        self.add(done.as_ref().err().map_or(ANSWERED, Failure::kind));
    }

    fn add(&self, outcome: &'static str) {
        *lock(&self.0).entry(outcome).or_default() += 1;
    }

    pub fn outcomes(&self) -> Outcomes {
        lock(&self.0).clone()
    }
}

/// A request that is inside; leaves when it is dropped.
pub(super) struct Inside {
    ledger: Ledger,
    is_told: AtomicBool,
    _place: OwnedSemaphorePermit,
}

impl Inside {
    pub fn new(ledger: Ledger, place: OwnedSemaphorePermit) -> Self {
        Inside { ledger, is_told: AtomicBool::new(false), _place: place }
    }

    /// Counts what became of it; only the first time counts.
    pub fn tell<T>(&self, done: Result<T, Failure>) -> Result<T, Failure> {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.ledger.count(&done);
        }
        done
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if !*self.is_told.get_mut() {
            self.ledger.add("gone");
        }
    }
}
