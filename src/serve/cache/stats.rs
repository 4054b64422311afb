//! What a cache tells about itself.

use super::BreakerState;
use crate::serve::alert::{Sample, metric, share};

/// Figures of a cache since it began; `entries`, `bytes`, `under_way` and `waiting` are of now.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Answered from this process.
    pub first_hits: u64,
    /// Answered from Redis.
    pub second_hits: u64,
    /// Answered by a computation of their own.
    pub misses: u64,
    /// Answered by the computation of an equal request.
    pub joins: u64,
    /// Computations under way.
    pub under_way: usize,
    /// Answers kept in this process since it began.
    pub kept: u64,
    /// Answers too large to be kept.
    pub too_large: u64,
    /// Answers removed or not admitted because there was no room.
    pub evicted: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Answers removed because their time was over.
    pub expired: u64,
    /// Computations that gave an error.
    pub failed: u64,
    /// Computations that panicked.
    pub panicked: u64,
    /// Computations that were given up.
    pub abandoned: u64,
    /// Answers in this process.
    pub entries: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that they may take.
    pub capacity_bytes: u64,
    /// The second level, where there is one.
    pub second: Option<SecondStats>,
}

impl Stats {
    /// Requests answered or under way.
    pub fn requests(&self) -> u64 {
        self.first_hits + self.second_hits + self.misses + self.joins
    }

    /// Share of requests that needed no computation of their own.
    pub fn hit_rate(&self) -> Option<f64> {
        share(self.requests() - self.misses, self.requests())
    }

    /// Answers evicted for each one kept.
    pub fn eviction_rate(&self) -> Option<f64> {
        share(self.evicted, self.kept)
    }

    /// The figures that [`crate::serve::alert`] has rules about; `subject` is the cache's name. Told of what has happened since an earlier
    /// time ([`Stats::since`]), they are of that time.
    pub fn samples(&self, subject: &str) -> Vec<Sample> {
        let hits = Sample::new(metric::HIT_RATE, subject, self.hit_rate());
        hits.into_iter().chain(Sample::new(metric::EVICTIONS, subject, self.eviction_rate())).collect()
    }

    /// What has happened since `earlier`.
    pub fn since(&self, earlier: &Stats) -> Stats {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Stats {
            first_hits: less(self.first_hits, earlier.first_hits),
            second_hits: less(self.second_hits, earlier.second_hits),
            misses: less(self.misses, earlier.misses),
            joins: less(self.joins, earlier.joins),
            kept: less(self.kept, earlier.kept),
            too_large: less(self.too_large, earlier.too_large),
            evicted: less(self.evicted, earlier.evicted),
            evicted_bytes: less(self.evicted_bytes, earlier.evicted_bytes),
            expired: less(self.expired, earlier.expired),
            failed: less(self.failed, earlier.failed),
            panicked: less(self.panicked, earlier.panicked),
            abandoned: less(self.abandoned, earlier.abandoned),
            ..self.clone()
        }
    }
}

/// Figures of the second level since it began; `reachable`, `breaker` and `waiting` are of now.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct SecondStats {
    /// Whether lookups are let in.
    pub reachable: bool,
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// How often it has opened.
    pub openings: u64,
    /// Answers asked for.
    pub lookups: u64,
    /// Answers found.
    pub hits: u64,
    /// Lookups not made: the server was left alone, or too many waited.
    pub refused: u64,
    /// Lookups that requests did not wait for any longer.
    pub late: u64,
    /// Values that were damaged, foreign or expired.
    pub damaged: u64,
    /// Lookups and connections that failed or took longer than the budget.
    pub failures: u64,
    /// Connections made.
    pub connections: u64,
    /// Answers stored.
    pub stored: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Bytes of the same answers in memory.
    pub plain_bytes: u64,
    /// Answers not stored: the server was left alone, too many bytes waited, or the server refused.
    pub dropped: u64,
    /// Answers waiting to be stored.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
}
