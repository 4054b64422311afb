//! How many requests at once: a limit found from latencies alone, by additive increase while they are below a target and multiplicative
//! decrease above (Chiu and Jain 1989), as TCP finds its window.

use std::time::{Duration, Instant};

/// A limit that follows latencies. Pure: times are told to it.
#[derive(Debug, Clone)]
pub struct Limit {
    target: Duration,
    range: (f64, f64),
    limit: f64,
    /// Requests that began before say nothing about the limit of now.
    lowered: Option<Instant>,
}

/// Factor of a decrease.
const BACKOFF: f64 = 0.9;

impl Limit {
    /// Begins at `first` and stays within `least..=most`. `target` is what requests may take.
    pub fn new(target: Duration, first: usize, least: usize, most: usize) -> Self {
        let range = (least.max(1) as f64, most.max(least).max(1) as f64);
        Limit { target, range, limit: (first as f64).clamp(range.0, range.1), lowered: None }
    }

    /// Requests that may be under way.
    pub fn now(&self) -> usize {
        self.limit as usize
    }

    /// A request was under way from `began` to `ended`, with `under_way` (itself among them) when it began; `failed` if it timed out or
    /// was turned away by what is behind this limit.
    pub fn sample(&mut self, began: Instant, ended: Instant, under_way: usize, failed: bool) {
        let next = if failed || ended.saturating_duration_since(began) > self.target {
            // A whole batch may be late for one reason.
            if self.lowered.is_some_and(|lowered| began < lowered) {
                return;
            }
            self.lowered = Some(ended);
            self.limit * BACKOFF
        } else if under_way as f64 * 2.0 >= self.limit {
            // One more for each round of as many requests; a limit that is not used says nothing about a higher one.
            self.limit + 1.0 / self.limit
        } else {
            self.limit
        };
        self.limit = next.clamp(self.range.0, self.range.1);
    }
}
