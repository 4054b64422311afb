//! The comparison: for each device and source of arrivals, the highest rate that keeps 99 % in time, goodput under overload, and latency added at rest.

use super::arrivals::Source;
use super::baselines::{Baseline, Cork};
use super::device::Device;
use super::oracle::{fewest_lost, highest_rate};
use super::run::{Outcome, run_baseline, run_scheduler};
use crate::serve::schedule::Batching;

/// Share of requests that have to be in time.
const ATTAINMENT: f64 = 0.99;

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// Its name.
    pub name: &'static str,
    /// `None` for this crate's scheduler.
    make: Option<fn(f64) -> Baseline>,
}

/// The baselines, then this crate's scheduler.
pub fn contenders() -> Vec<Contender> {
    let peer = |name, make: fn(f64) -> Baseline| Contender { name, make: Some(make) };
    vec![
        peer("none", |_| Baseline::Single),
        peer("window 5 ms", |_| Baseline::Window { seconds: 5e-3 }),
        peer("greedy", |_| Baseline::Greedy),
        peer("AIMD", |_| Baseline::Aimd { size: 1.0 }),
        peer("Nexus", |_| Baseline::Nexus { margin: 1.0 }),
        peer("CORK", |target_s| Baseline::Cork(Box::new(Cork::new(target_s)))),
        Contender { name: "halfbyte", make: None },
    ]
}

/// What is compared, and how often.
#[derive(Debug, Clone)]
pub struct Study {
    /// From arrival to deadline.
    pub target_s: f64,
    /// Standard deviation of the logarithm of batch times.
    pub noise: f64,
    /// Requests of a run.
    pub requests: usize,
    /// Seeds of arrivals and of noise.
    pub seeds: Vec<u64>,
}

/// A device and a source of arrivals, with the highest rate that the offline optimum keeps, in requests a second.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Row {
    pub device: Device,
    pub source: Source,
    pub oracle_rate: f64,
}

/// One contender in one row.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Figures {
    /// The device's name.
    pub device: &'static str,
    /// The arrivals' name.
    pub arrivals: String,
    /// Who.
    pub policy: &'static str,
    /// The highest rate that keeps 99 % in time, as a share of the optimum's.
    pub rate_of_oracle: f64,
    /// Answers in time a second when 1.3 times the capacity arrives, as a share of the capacity.
    pub goodput: f64,
    /// Median latency at 2 % of the capacity, less a batch of one.
    pub added_ms: f64,
}

/// All rows, the optimum of each computed without noise: `progress` is called after each.
pub fn rows(study: &Study, sources: &[Source], mut progress: impl FnMut()) -> Vec<Row> {
    let mut found = Vec::new();
    for device in Device::ALL {
        for source in sources {
            let optimum = study.optimum(&device, source);
            found.push(Row { device, source: source.clone(), oracle_rate: optimum });
            progress();
        }
    }
    found
}

impl Study {
    /// Seeds of arrivals, which recorded ones do not have.
    fn arrival_seeds(&self, source: &Source) -> &[u64] {
        if matches!(source, Source::Recorded { .. }) { &self.seeds[..self.seeds.len().min(1)] } else { &self.seeds }
    }

    fn optimum(&self, device: &Device, source: &Source) -> f64 {
        let seeds = self.arrival_seeds(source);
        let holds = |rate: f64| {
            let kept = |seed: &&u64| {
                let arrivals = source.arrivals(self.requests, rate, **seed);
                fewest_lost(&arrivals, device, self.target_s, arrivals.len() / 100).is_some()
            };
            2 * seeds.iter().filter(kept).count() > seeds.len()
        };
        highest_rate(0.01 * device.capacity(), 1.1 * device.capacity(), holds)
    }

    fn outcome(&self, row: &Row, contender: &Contender, arrivals: &[f64], seed: u64) -> Outcome {
        let (device, seed) = (&row.device, seed.wrapping_mul(31).wrapping_add(1));
        match contender.make {
            Some(make) => run_baseline(arrivals, device, self.target_s, self.noise, make(self.target_s), seed),
            None => {
                let target_p99 = std::time::Duration::from_secs_f64(self.target_s);
                let options =
                    Batching { target_p99, max_batch: device.max_batch, queue_limit: usize::MAX, ..Batching::default() };
                run_scheduler(arrivals, device, self.target_s, self.noise, &options, seed)
            }
        }
    }

    /// The share in time at a rate, over all seeds; recorded arrivals are the same for each, and only noise differs.
    pub fn attainment(&self, row: &Row, contender: &Contender, rate: f64) -> f64 {
        let (mut in_time, mut offered) = (0, 0);
        let only_one = matches!(row.source, Source::Recorded { .. }) && self.noise == 0.0;
        for &seed in &self.seeds[..if only_one { 1 } else { self.seeds.len() }] {
            let outcome = self.outcome(row, contender, &row.source.arrivals(self.requests, rate, seed), seed);
            (in_time, offered) = (in_time + outcome.in_time, offered + outcome.offered);
        }
        in_time as f64 / offered.max(1) as f64
    }

    /// All figures of a contender in a row.
    pub fn figures(&self, row: &Row, contender: &Contender) -> Figures {
        let capacity = row.device.capacity();
        let holds = |rate: f64| self.attainment(row, contender, rate) >= ATTAINMENT;
        let rate = highest_rate(0.002 * capacity, 1.1 * capacity, holds);
        let goodput = |&seed: &u64| {
            let arrivals = row.source.arrivals(self.requests, 1.3 * capacity, seed);
            let span_s = arrivals.last().map_or(1.0, |last| last - arrivals[0]);
            self.outcome(row, contender, &arrivals, seed).in_time as f64 / span_s / capacity
        };
        let quiet = row.source.arrivals(self.requests, 0.02 * capacity, self.seeds[0]);
        let median_s = self.outcome(row, contender, &quiet, self.seeds[0]).median_s();
        Figures {
            device: row.device.name,
            arrivals: row.source.name().into(),
            policy: contender.name,
            rate_of_oracle: rate / row.oracle_rate,
            goodput: self.seeds.iter().map(goodput).sum::<f64>() / self.seeds.len() as f64,
            added_ms: (median_s - row.device.time_s(1)) * 1e3,
        }
    }
}
