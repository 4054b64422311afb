//! The concurrency limit before simulated servers, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use halfbyte::serve::limit::Limit;

use super::Random;

/// What is behind the limit. Times in us.
enum Server {
    /// So many at once, each for an exponential time of this mean; the rest waits in line.
    Workers { free_at: Vec<u64>, mean_us: f64 },
    /// One batch at a time of all that wait, 64 at most: `base + each n`.
    Batcher { queue: VecDeque<(u64, usize)>, free_at: u64, base_us: u64, each_us: u64 },
}

impl Random {
    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * ((f64::from(self.below(1 << 24)) + 0.5) / f64::from(1 << 24)).ln()
    }
}

/// A request under way: when it ends, when it began, and how many were under way then.
type Ends = BinaryHeap<Reverse<(u64, u64, usize)>>;

impl Server {
    fn workers(n: usize, mean_us: f64) -> Self {
        Server::Workers { free_at: vec![0; n], mean_us }
    }

    /// Work that can begin by `now`.
    fn advance(&mut self, now: u64, ends: &mut Ends) {
        let Server::Batcher { queue, free_at, base_us, each_us } = self else { return };
        while let Some(&(first, _)) = queue.front() {
            let start = first.max(*free_at);
            if start > now {
                return;
            }
            let n = queue.iter().take(64).take_while(|(arrived, _)| *arrived <= start).count();
            *free_at = start + *base_us + *each_us * n as u64;
            queue.drain(..n).for_each(|(arrived, under_way)| ends.push(Reverse((*free_at, arrived, under_way))));
        }
    }

    fn arrive(&mut self, now: u64, under_way: usize, random: &mut Random, ends: &mut Ends) {
        match self {
            Server::Batcher { queue, .. } => queue.push_back((now, under_way)),
            Server::Workers { free_at, mean_us } => {
                let first = free_at.iter_mut().min().unwrap();
                *first = now.max(*first) + random.exponential(*mean_us) as u64;
                ends.push(Reverse((*first, now, under_way)));
            }
        }
    }
}

struct Outcome {
    /// Answers within the target, a second.
    good_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// The limit on average.
    limit: f64,
}

/// Requests by a Poisson process, for `seconds` of which the first half is not counted. The server's clock begins at the time beside it.
fn simulate(server: (&mut Server, Instant), mut limit: Option<&mut Limit>, per_s: f64, seconds: u64, target_us: u64) -> Outcome {
    let (mut random, mut ends, start) = (Random(12345), Ends::new(), server.1);
    let at_us = |time: u64| start + Duration::from_micros(time);
    let (mut now, mut limits, mut arrivals, mut under_way) = (0f64, 0.0, 0.0, 0usize);
    let (half, mut latencies) = (seconds * 500_000, Vec::new());
    while now < seconds as f64 * 1e6 {
        now += random.exponential(1e6 / per_s);
        let time = now as u64;
        server.0.advance(time, &mut ends);
        while ends.peek().is_some_and(|Reverse((end, ..))| *end <= time) {
            let Reverse((end, began, then)) = ends.pop().unwrap();
            under_way -= 1;
            if let Some(limit) = limit.as_deref_mut() {
                limit.sample(at_us(began), at_us(end), then, false);
            }
            if end >= half {
                latencies.push(end - began);
            }
        }
        let allowed = limit.as_ref().map_or(usize::MAX, |limit| limit.now());
        if under_way < allowed {
            under_way += 1;
            server.0.arrive(time, under_way, &mut random, &mut ends);
        }
        if time >= half {
            (limits, arrivals) = (limits + allowed as f64, arrivals + 1.0);
        }
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    let good = latencies.iter().filter(|&&l| l <= target_us).count();
    Outcome { good_per_s: good as f64 / (seconds as f64 / 2.0), p50_ms: at(0.5), p99_ms: at(0.99), limit: limits / arrivals }
}

#[test]
fn before_workers_a_limit_is_found_and_follows_them() {
    let (mean_us, target_us) = (10_000.0, 50_000);
    let (mut limit, mut start) = (Limit::new(Duration::from_micros(target_us), 20, 1, 1000), Instant::now());
    for workers in [8, 4, 16, 8] {
        let capacity = workers as f64 * 1e6 / mean_us;
        for load in [0.5, 1.5] {
            // The limit goes on from where it was.
            start += Duration::from_secs(100);
            let one = |limit: Option<&mut Limit>| {
                simulate((&mut Server::workers(workers, mean_us), start), limit, capacity * load, 60, target_us)
            };
            let (with, without) = (one(Some(&mut limit)), one(None));
            let share = |o: &Outcome| 100.0 * o.good_per_s / capacity;
            println!(
                "{workers} workers, load {load}: limit {:.1}, {:.0} % of capacity in time (without {:.0} %), p50 {:.1} ms, p99 {:.1} ms (without {:.1})",
                with.limit,
                share(&with),
                share(&without),
                with.p50_ms,
                with.p99_ms,
                without.p99_ms
            );
            if load < 1.0 {
                assert!(share(&with) > share(&without) - 2.0, "what the server can do is let in");
            } else {
                assert!(share(&with) > 85.0 && share(&without) < 5.0, "overload is held off");
                assert!(with.limit >= workers as f64 && with.limit < workers as f64 * 5.0);
            }
        }
    }
}

#[test]
fn before_a_batcher_a_limit_is_compared_with_the_best_fixed_one() {
    // A GPU of the notes on scheduling: 2 ms and 0.05 ms for each, 64 at most; 12,308 a second.
    let (target_us, capacity) = (20_000, 64e6 / (2000.0 + 64.0 * 50.0));
    for load in [0.02, 0.5, 0.9, 1.3] {
        let one = |limit: Option<&mut Limit>| {
            let mut batcher = Server::Batcher { queue: VecDeque::new(), free_at: 0, base_us: 2000, each_us: 50 };
            simulate((&mut batcher, Instant::now()), limit, capacity * load, 20, target_us)
        };
        let target = Duration::from_micros(target_us);
        let fixed = (1..=12).map(|i| (i * 32, one(Some(&mut Limit::new(target, i * 32, i * 32, i * 32)))));
        let (best, fixed) = fixed.max_by(|a, b| a.1.good_per_s.total_cmp(&b.1.good_per_s)).unwrap();
        let (with, without) = (one(Some(&mut Limit::new(target, 20, 1, 10_000))), one(None));
        for (name, o) in [("without", without), (&format!("fixed at {best}"), fixed), ("found", with)] {
            let (share, Outcome { p50_ms, p99_ms, limit, .. }) = (100.0 * o.good_per_s / capacity, o);
            println!(
                "load {load}, {name}: {share:.1} % of capacity in time, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, limit {limit:.0}"
            );
            assert!(name != "found" || share > 92.0 * f64::min(load, 1.0), "the limit costs little");
        }
    }
}
