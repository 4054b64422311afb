//! `cargo bench --bench scheduler`: what the scheduler costs a request (offer, next, finished), with few and with 10 000 queued; then how it and its
//! peers do on virtual devices, as `halfbyte bench batching --quick` prints it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use halfbyte::base::xorshift::Xorshift;
use halfbyte::serve::schedule::{Batch, Batching, Policy, Request, Scheduler, Step};
use halfbyte::serve::simulate::arrivals::Source;
use halfbyte::serve::simulate::{Study, contenders, rows};

/// Requests offered before a batch is taken.
const BATCH: usize = 64;

struct Load {
    scheduler: Scheduler,
    batch: Batch,
    random: Xorshift,
    now: Duration,
    tenants: usize,
    batch_time: Duration,
}

impl Load {
    /// A scheduler with this many requests queued, due in `slack` and up to as much again.
    fn new(policy: Policy, queued: usize, tenants: usize, batch_time: Duration, slack: Duration) -> Load {
        let options = Batching { policy, queue_limit: usize::MAX, max_batch: BATCH, ..Batching::default() };
        let scheduler = Scheduler::new(&options);
        let mut load =
            Load { scheduler, batch: Batch::default(), random: Xorshift::new(1), now: Duration::ZERO, tenants, batch_time };
        (0..queued).for_each(|_| load.offer(slack));
        load
    }

    fn offer(&mut self, slack: Duration) {
        let tenant = self.random.below(self.tenants) as u32;
        let deadline = self.now + slack + Duration::from_nanos(self.random.below(slack.as_nanos() as usize) as u64);
        let _ = black_box(self.scheduler.offer(Request { tenant, deadline, ..Request::default() }, self.now));
    }

    fn round(&mut self, slack: Duration) {
        (0..BATCH).for_each(|_| self.offer(slack));
        if self.scheduler.next(self.now, &mut self.batch) == Step::Run {
            self.now += self.batch_time;
            self.scheduler.finished(&self.batch, self.batch_time, self.now);
        }
    }
}

fn costs(c: &mut Criterion) {
    let (short, long) = (Duration::from_micros(10), Duration::from_secs(3600));
    let busy = (Duration::from_millis(5), Duration::from_millis(10));
    let cases = [
        ("greedy, few queued", Policy::Greedy, 0, 1, short, long),
        ("adaptive, few queued", Policy::Adaptive, 0, 1, short, long),
        ("adaptive, 10 000 queued", Policy::Adaptive, 10_000, 1, short, long),
        ("adaptive, 10 000 queued of 100 tenants", Policy::Adaptive, 10_000, 100, short, long),
        ("adaptive, a device that is too slow", Policy::Adaptive, 0, 1, busy.0, busy.1),
    ];
    for (name, policy, queued, tenants, batch_time, slack) in cases {
        let mut load = Load::new(policy, queued, tenants, batch_time, slack);
        let mut best_ns = f64::INFINITY;
        c.bench_function(&format!("{BATCH} requests and a batch: {name}"), |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                (0..rounds).for_each(|_| load.round(slack));
                let took = start.elapsed();
                best_ns = best_ns.min(took.as_nanos() as f64 / (rounds as usize * BATCH) as f64);
                took
            })
        });
        println!("{name}: {best_ns:.0} ns a request");
    }
}

fn policies(_: &mut Criterion) {
    let study = Study { target_s: 0.02, noise: 0.2, requests: 1500, seeds: vec![7] };
    for row in rows(&study, &[Source::Poisson, Source::Bursts], || ()) {
        let figures = contenders().iter().map(|contender| study.figures(&row, contender)).collect::<Vec<_>>();
        let cells = figures.iter().map(|f| format!("{} {:.1}", f.policy, 100.0 * f.rate_of_oracle)).collect::<Vec<_>>();
        println!("{}, {}: {} (% of the optimum)", row.device.name, row.source.name(), cells.join(", "));
    }
}

fn brief() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20)
}

criterion_group! { name = benches; config = brief(); targets = costs, policies }
criterion_main!(benches);
