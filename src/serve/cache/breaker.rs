//! A circuit breaker: after failures in a row a server is left alone for a while, then tried once (M. Nygard, "Release It!").

use std::time::{Duration, Instant};

/// Whether the server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It is asked.
    #[default]
    Closed,
    /// It is left alone.
    Open,
    /// It answers again, but one more failure opens the breaker at once.
    HalfOpen,
}

/// Counts failures in a row.
#[derive(Debug, Clone)]
pub struct Breaker {
    limit: u32,
    open_for: Duration,
    state: BreakerState,
    failures: u32,
    until: Option<Instant>,
    openings: u64,
}

impl Breaker {
    /// One that opens after `limit` failures in a row, for `open_for`.
    pub fn new(limit: u32, open_for: Duration) -> Self {
        Breaker { limit: limit.max(1), open_for, state: BreakerState::Closed, failures: 0, until: None, openings: 0 }
    }

    /// An answer came in time.
    pub fn succeeded(&mut self) {
        (self.state, self.failures) = (BreakerState::Closed, 0);
    }

    /// None came, or too late.
    pub fn failed(&mut self, now: Instant) {
        self.failures += 1;
        if self.state == BreakerState::HalfOpen || self.failures >= self.limit {
            self.openings += u64::from(self.state != BreakerState::Open);
            (self.state, self.until) = (BreakerState::Open, now.checked_add(self.open_for));
        }
    }

    /// The server has answered a probe: requests may try.
    pub fn probed(&mut self) {
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// How long the server is still left alone.
    pub fn rest(&self, now: Instant) -> Duration {
        match (self.state, self.until) {
            (BreakerState::Open, Some(until)) => until.saturating_duration_since(now),
            (BreakerState::Open, None) => self.open_for,
            _ => Duration::ZERO,
        }
    }

    /// Whether the server is asked.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// How often it has opened; a failed probe is no new opening.
    pub fn openings(&self) -> u64 {
        self.openings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_success() {
        let (mut breaker, start) = (Breaker::new(3, Duration::from_secs(1)), Instant::now());
        for _ in 0..2 {
            breaker.failed(start);
        }
        breaker.succeeded();
        for _ in 0..2 {
            breaker.failed(start);
        }
        assert_eq!((breaker.state(), breaker.rest(start)), (BreakerState::Closed, Duration::ZERO));
        breaker.failed(start);
        assert_eq!((breaker.state(), breaker.rest(start)), (BreakerState::Open, Duration::from_secs(1)));
        // The probe fails: another rest, but no new opening.
        let later = start + Duration::from_secs(2);
        assert_eq!(breaker.rest(later), Duration::ZERO);
        breaker.failed(later);
        assert_eq!((breaker.openings(), breaker.rest(later)), (1, Duration::from_secs(1)));
        // It succeeds, but the first request fails.
        breaker.probed();
        assert_eq!((breaker.state(), breaker.rest(later)), (BreakerState::HalfOpen, Duration::ZERO));
        breaker.failed(later);
        assert_eq!((breaker.state(), breaker.openings()), (BreakerState::Open, 2));
        breaker.probed();
        breaker.succeeded();
        breaker.failed(later);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
