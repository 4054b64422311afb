//! Requests at once, for all threads: a permit each, within a limit that follows their latencies.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::Limit;
use crate::base::lock;

struct Shared {
    limit: Mutex<Limit>,
    most: AtomicUsize,
    under_way: AtomicUsize,
    admitted: AtomicU64,
    refused: AtomicU64,
}

/// Lets requests in while fewer than the limit are under way. Clones share it.
#[derive(Clone)]
pub struct Concurrency(Arc<Shared>);

/// A request was turned away because as many as the limit were under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} requests are under way, as many as may be at once; try again later")]
pub struct Busy {
    /// The limit then.
    pub limit: usize,
}

/// Figures of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ConcurrencyStats {
    /// Requests that may be under way.
    pub limit: usize,
    /// Those that are.
    pub under_way: usize,
    /// Requests let in since it began.
    pub admitted: u64,
    /// Requests turned away.
    pub refused: u64,
}

/// The right to be under way. Dropped without [`Permit::done`] it says nothing about latencies: a cancelled request.
pub struct Permit {
    shared: Arc<Shared>,
    began: Instant,
    under_way: usize,
}

impl Concurrency {
    /// With a limit to begin with.
    pub fn new(limit: Limit) -> Self {
        let (most, [under_way]) = (AtomicUsize::new(limit.now()), Default::default());
        let [admitted, refused] = Default::default();
        Concurrency(Arc::new(Shared { limit: Mutex::new(limit), most, under_way, admitted, refused }))
    }

    /// A permit, if there is one.
    pub fn admit(&self) -> Result<Permit, Busy> {
        let Shared { most, under_way, admitted, refused, .. } = &*self.0;
        let limit = most.load(Relaxed);
        match under_way.fetch_update(Relaxed, Relaxed, |now| (now < limit).then_some(now + 1)) {
            Ok(before) => {
                admitted.fetch_add(1, Relaxed);
                Ok(Permit { shared: self.0.clone(), began: Instant::now(), under_way: before + 1 })
            }
            Err(_) => {
                refused.fetch_add(1, Relaxed);
                Err(Busy { limit })
            }
        }
    }

    /// Its figures.
    pub fn stats(&self) -> ConcurrencyStats {
        let Shared { most, under_way, admitted, refused, .. } = &*self.0;
        let [limit, under_way] = [most, under_way].map(|n| n.load(Relaxed));
        let [admitted, refused] = [admitted, refused].map(|n| n.load(Relaxed));
        ConcurrencyStats { limit, under_way, admitted, refused }
    }
}

impl Permit {
    /// The request is answered, or has failed by a timeout or for want of room.
    pub fn done(self, failed: bool) {
        let mut limit = lock(&self.shared.limit);
        limit.sample(self.began, Instant::now(), self.under_way, failed);
        self.shared.most.store(limit.now(), Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.under_way.fetch_sub(1, Relaxed);
    }
}
