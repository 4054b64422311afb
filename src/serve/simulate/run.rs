//! One run: arrivals through a policy onto a device.

use std::time::Duration;

use super::arrivals::normal;
use super::baselines::{Baseline, Move};
use super::device::Device;
use crate::base::xorshift::Xorshift;
use crate::serve::schedule::{Batch, Batching, Request, Scheduler, Step};

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Outcome {
    pub offered: usize,
    pub in_time: usize,
    pub expelled: usize,
    pub batches: usize,
    pub busy_s: f64,
    /// From arrival to answer, of those that ran.
    pub latencies_s: Vec<f64>,
}

impl Outcome {
    /// The share that met its deadline.
    pub fn attainment(&self) -> f64 {
        self.in_time as f64 / self.offered.max(1) as f64
    }

    fn answer(&mut self, arrived_s: f64, now_s: f64, target_s: f64) {
        let latency_s = now_s - arrived_s;
        self.in_time += usize::from(latency_s <= target_s + 1e-9);
        self.latencies_s.push(latency_s);
    }

    /// The latency that half of those that ran stayed under; 0 when none ran.
    pub fn median_s(&mut self) -> f64 {
        self.latencies_s.sort_by(f64::total_cmp);
        self.latencies_s.get(self.latencies_s.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Times of batches with lognormal noise of median 1.
struct Clock {
    device: Device,
    noise: f64,
    random: Xorshift,
}

impl Clock {
    fn took_s(&mut self, rows: usize) -> f64 {
        let factor = if self.noise > 0.0 { (self.noise * normal(&mut self.random)).exp() } else { 1.0 };
        self.device.time_s(rows) * factor
    }
}

/// Requests that arrive at these times, each due `target_s` later, through a baseline.
pub fn run_baseline(arrivals_s: &[f64], device: &Device, target_s: f64, noise: f64, mut policy: Baseline, seed: u64) -> Outcome {
    let mut clock = Clock { device: *device, noise, random: Xorshift::new(seed) };
    let mut outcome = Outcome { offered: arrivals_s.len(), ..Outcome::default() };
    let (mut first, mut came, mut now_s) = (0, 0, 0.0f64);
    loop {
        came += arrivals_s[came..].iter().take_while(|&&t| t <= now_s).count();
        if first == came {
            let Some(&next) = arrivals_s.get(came) else { return outcome };
            now_s = next;
            continue;
        }
        match policy.decide(&arrivals_s[first..came], now_s, device, target_s) {
            Move::Wait { seconds } => {
                let next_s = arrivals_s.get(came).copied().unwrap_or(f64::INFINITY);
                now_s = (now_s + seconds).min(next_s).max(now_s + 1e-9);
            }
            Move::Run { give_up, run } => {
                first += give_up;
                outcome.expelled += give_up;
                if run == 0 {
                    continue;
                }
                let (waited_s, took_s) = (now_s - arrivals_s[first], clock.took_s(run));
                now_s += took_s;
                (outcome.batches, outcome.busy_s) = (outcome.batches + 1, outcome.busy_s + took_s);
                arrivals_s[first..first + run].iter().for_each(|&t| outcome.answer(t, now_s, target_s));
                first += run;
                policy.finished(run, took_s, waited_s, now_s, target_s);
            }
        }
    }
}

/// The same through a scheduler, which learns the device's times as it goes.
pub fn run_scheduler(arrivals_s: &[f64], device: &Device, target_s: f64, noise: f64, options: &Batching, seed: u64) -> Outcome {
    let mut clock = Clock { device: *device, noise, random: Xorshift::new(seed) };
    let mut outcome = Outcome { offered: arrivals_s.len(), ..Outcome::default() };
    let mut scheduler = Scheduler::new(options);
    let (mut came, mut now_s, mut batch) = (0, 0.0f64, Batch::default());
    // Arrivals by the index of their key.
    let mut arrived: Vec<f64> = Vec::new();
    loop {
        while let Some(&at_s) = arrivals_s.get(came).filter(|&&t| t <= now_s) {
            came += 1;
            let request = Request { deadline: Duration::from_secs_f64(at_s + target_s), ..Request::default() };
            match scheduler.offer(request, Duration::from_secs_f64(at_s)) {
                Ok(key) => {
                    if arrived.len() <= key.index() {
                        arrived.resize(key.index() + 1, 0.0);
                    }
                    arrived[key.index()] = at_s;
                }
                Err(_) => outcome.expelled += 1,
            }
        }
        let next_s = arrivals_s.get(came).copied();
        let step = scheduler.next(Duration::from_secs_f64(now_s), &mut batch);
        outcome.expelled += batch.expelled.len();
        match step {
            Step::Run => {
                let took_s = clock.took_s(batch.rows as usize);
                now_s += took_s;
                (outcome.batches, outcome.busy_s) = (outcome.batches + 1, outcome.busy_s + took_s);
                batch.keys.iter().for_each(|key| outcome.answer(arrived[key.index()], now_s, target_s));
                scheduler.finished(&batch, Duration::from_secs_f64(took_s), Duration::from_secs_f64(now_s));
            }
            Step::Wait(until) => now_s = next_s.map_or(until.as_secs_f64(), |t| t.min(until.as_secs_f64())).max(now_s + 1e-9),
            Step::Idle => match next_s {
                Some(at_s) => now_s = at_s,
                None => return outcome,
            },
        }
    }
}
