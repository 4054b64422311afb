//! One limit of requests by time: governor's generic cell rate algorithm, with what is counted beside it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::error::{Error, Result};

/// A steady rate, and how much may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rate {
    /// Requests (or what their cost is counted in) in a second, on average.
    pub per_second: f64,
    /// The most at once.
    pub burst: u32,
}

const CENTURY_S: f64 = 3.15e9;

impl Rate {
    /// For each cell of cost. Errors when the rate is no positive number or nothing may ever come.
    pub(super) fn quota(&self) -> Result<Quota> {
        let bad =
            || Error::BadInput(format!("a rate of {} a second with bursts of {} admits nothing", self.per_second, self.burst));
        let burst = NonZeroU32::new(self.burst).ok_or_else(bad)?;
        // A burst fills up again within a century, so that no sum of times overflows.
        let period_s = 1.0 / self.per_second;
        let period = (period_s > 0.0 && period_s * f64::from(self.burst) <= CENTURY_S)
            .then(|| Duration::from_secs_f64(period_s.max(1e-9)))
            .ok_or_else(bad)?;
        Ok(Quota::with_period(period).ok_or_else(bad)?.allow_burst(burst))
    }
}

/// What was let in and what was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// Requests let in.
    pub admitted: u64,
    /// Requests turned away.
    pub throttled: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.admitted += other.admitted;
        self.throttled += other.throttled;
    }
}

type Gcra<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A limit with its state.
pub(super) struct Meter<C: Clock> {
    pub(super) rate: Option<Rate>,
    gcra: Option<Gcra<C>>,
    clock: C,
    start: C::Instant,
    last_use_ns: AtomicU64,
    admitted: AtomicU64,
    throttled: AtomicU64,
}

impl<C: Clock + Clone> Meter<C> {
    /// Without a rate everything is let in and counted. The rate was found valid.
    pub(super) fn new(rate: Option<Rate>, clock: &C) -> Self {
        let quota = rate.and_then(|rate| rate.quota().ok());
        let (gcra, start) = (quota.map(|quota| Gcra::direct_with_clock(quota, clock.clone())), clock.now());
        let [last_use_ns, admitted, throttled] = Default::default();
        Meter { rate, gcra, clock: clock.clone(), start, last_use_ns, admitted, throttled }
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
    }

    /// Lets in what costs `cost`, or tells after what time it may come again; `None` if it never may, being more than the burst.
    pub(super) fn admit(&self, cost: NonZeroU32) -> Result<(), Option<Duration>> {
        self.last_use_ns.store(self.now_ns(), Relaxed);
        let verdict = match self.gcra.as_ref().map(|gcra| gcra.check_n(cost)) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(not_until))) => Err(Some(not_until.wait_time_from(self.clock.now()))),
            Some(Err(_)) => Err(None),
        };
        (if verdict.is_ok() { &self.admitted } else { &self.throttled }).fetch_add(1, Relaxed);
        verdict
    }

    /// Whether nothing would change for anybody if its state were forgotten: it has had the time to fill up again.
    pub(super) fn is_idle(&self) -> bool {
        let quota = self.rate.and_then(|rate| rate.quota().ok());
        let refill = quota.map_or(Duration::ZERO, |quota| quota.burst_size_replenished_in());
        u128::from(self.now_ns().saturating_sub(self.last_use_ns.load(Relaxed))) > refill.as_nanos()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { admitted: self.admitted.load(Relaxed), throttled: self.throttled.load(Relaxed) }
    }

    /// Goes on counting where another left off.
    pub(super) fn with_counts_of(self, other: &Meter<C>) -> Self {
        let Counts { admitted, throttled } = other.counts();
        Meter { admitted: admitted.into(), throttled: throttled.into(), ..self }
    }
}
