//! The batch scheduler on a virtual clock: nothing lost or answered twice, order, fairness, padding, reasons, and that it learns.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::serve::schedule::{Batch, Batching, Key, Policy, Rejection, Request, Scheduler, Step};
use halfbyte::serve::simulate::arrivals::{Source, normal};
use halfbyte::serve::simulate::{Device, Study, contenders, fewest_lost, run_scheduler};

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms * 1e-3)
}

const POLICIES: [Policy; 5] = [
    Policy::Adaptive,
    Policy::Greedy,
    Policy::None,
    Policy::Fixed { size: 5 },
    Policy::Window { wait: Duration::from_micros(700) },
];

/// A scheduler under random use, with all that is known of its requests from outside.
struct Fuzz {
    scheduler: Scheduler,
    random: Xorshift,
    now: Duration,
    queued: HashMap<Key, Request>,
    batch: Batch,
    running: Vec<(Batch, Duration)>,
    ends: [u64; 4],
    offered: u64,
    limits: Batching,
}

impl Fuzz {
    fn new(seed: u64) -> Fuzz {
        let limits = Batching { queue_limit: 300, max_batch: 16, ..Batching::default() };
        Fuzz {
            scheduler: Scheduler::new(&limits),
            random: Xorshift::new(seed),
            now: Duration::ZERO,
            queued: HashMap::new(),
            batch: Batch::default(),
            running: Vec::new(),
            ends: [0; 4],
            offered: 0,
            limits,
        }
    }

    fn offer(&mut self) {
        let random = &mut self.random;
        let request = Request {
            model: random.below(3) as u32,
            kind: random.below(2) as u32,
            tenant: random.below(6) as u32,
            priority: random.below(3) as u8,
            deadline: self.now + Duration::from_micros(random.below(20_000) as u64),
            rows: if random.below(4) == 0 { random.below(18) as u32 } else { 1 },
            length: 1 + random.below(200) as u32,
        };
        self.offered += 1;
        match self.scheduler.offer(request, self.now) {
            Ok(key) => assert!(self.queued.insert(key, request).is_none(), "a key of a queued request came again"),
            Err(why) => {
                self.check_reason(why, &request);
                self.ends[0] += 1;
            }
        }
    }

    fn check_reason(&self, why: Rejection, request: &Request) {
        match why {
            Rejection::QueueFull { limit } => assert!(self.queued.len() >= limit),
            Rejection::TooLarge { rows, max } => assert!(rows as usize > max && rows == request.rows),
            Rejection::Empty => assert_eq!(request.rows, 0),
            Rejection::TooLate { left, .. } => assert!(left <= request.deadline.saturating_sub(self.now)),
            Rejection::Draining => {}
        }
    }

    fn step(&mut self) {
        let step = self.scheduler.next(self.now, &mut self.batch);
        for (key, why) in &self.batch.expelled {
            assert!(self.queued.remove(key).is_some(), "expelled twice, or never admitted");
            assert!(matches!(why, Rejection::TooLate { .. }), "{why:?}");
            self.ends[1] += 1;
        }
        match step {
            Step::Run => self.check_batch(),
            Step::Wait(until) => assert!(until > self.now && self.batch.keys.is_empty() && !self.queued.is_empty()),
            Step::Idle => assert!(self.queued.is_empty() && self.batch.keys.is_empty()),
        }
    }

    fn check_batch(&mut self) {
        let (mut rows, mut elements, mut longest) = (0, 0u64, 0);
        for key in &self.batch.keys {
            let request = self.queued.remove(key).expect("run twice, or never admitted");
            assert_eq!((request.model, request.kind), (self.batch.model, self.batch.kind));
            (rows, longest) = (rows + request.rows, longest.max(request.length));
            elements += u64::from(request.rows) * u64::from(request.length);
        }
        assert!(rows == self.batch.rows && longest == self.batch.length && rows > 0);
        assert!(rows as usize <= self.limits.max_batch || self.batch.keys.len() == 1);
        let all = u64::from(rows) * u64::from(longest);
        assert!((all - elements) as f64 <= self.limits.max_padding * all as f64 + 1e-6, "padding {} of {all}", all - elements);
        self.ends[2] += self.batch.keys.len() as u64;
        self.running.push((self.batch.clone(), self.now));
    }

    /// A batch ends: after the expected time, much later (a fault), or at once.
    fn finish(&mut self) {
        let Some((batch, _)) = self.running.pop() else { return };
        let factor = [1.0, 1.0, 1.0, 30.0, 0.0][self.random.below(5)];
        let took = ms((0.2 + 0.05 * f64::from(batch.rows)) * factor);
        self.now += took.min(ms(5.0));
        self.scheduler.finished(&batch, took, self.now);
    }

    fn cancel(&mut self) {
        let known = self.queued.keys().min().copied();
        if let Some(key) = known {
            assert!(self.scheduler.cancel(key) && !self.scheduler.cancel(key));
            self.queued.remove(&key);
            self.ends[3] += 1;
        }
    }

    fn change(&mut self) {
        let policy = POLICIES[self.random.below(POLICIES.len())];
        let max_padding = [0.0, 0.25, 0.25, 0.5, 1.0][self.random.below(5)];
        self.limits = Batching { policy, max_padding, min_batch: 1 + self.random.below(4), ..self.limits.clone() };
        self.scheduler.set(&self.limits);
    }

    fn operate(&mut self) {
        match self.random.below(1000) {
            0..500 => self.offer(),
            500..750 => self.step(),
            750..900 => self.finish(),
            900..920 => self.cancel(),
            920 => self.change(),
            _ => self.now += Duration::from_micros(self.random.below(200) as u64),
        }
        assert_eq!(self.scheduler.depth(), self.queued.len());
    }

    /// Drains: nothing is admitted, all that waits still runs or is expelled.
    fn drain(&mut self) {
        self.scheduler.drain();
        assert_eq!(self.scheduler.offer(Request::default(), self.now), Err(Rejection::Draining));
        self.offered += 1;
        self.ends[0] += 1;
        while !self.queued.is_empty() {
            self.step();
            self.finish();
            self.now += Duration::from_micros(50);
        }
        let counts = self.scheduler.statistics();
        assert_eq!(self.ends.iter().sum::<u64>(), self.offered, "{:?}", self.ends);
        assert_eq!((counts.offered, counts.run, counts.cancelled), (self.offered, self.ends[2], self.ends[3]));
        assert!(self.ends.iter().all(|&n| n > 0), "all ends were met: {:?}", self.ends);
    }
}

/// Random operations: more with `HALFBYTE_BATCHING_OPERATIONS`.
#[test]
fn every_request_ends_exactly_once_whatever_happens() {
    let operations: u64 = std::env::var("HALFBYTE_BATCHING_OPERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let mut total = [0; 4];
    for seed in 0..10 {
        let mut fuzz = Fuzz::new(seed);
        (0..operations / 10).for_each(|_| fuzz.operate());
        fuzz.drain();
        total.iter_mut().zip(fuzz.ends).for_each(|(sum, n)| *sum += n);
    }
    let [rejected, expelled, run, cancelled] = total;
    println!("{operations} operations: {rejected} rejected, {expelled} expelled, {run} run, {cancelled} cancelled");
}

#[test]
fn runs_with_the_same_seed_are_the_same() {
    let outcome = |seed| {
        let arrivals = Source::Bursts.arrivals(4000, 9000.0, seed);
        let options = Batching { queue_limit: usize::MAX, ..Batching::default() };
        run_scheduler(&arrivals, &Device::ALL[0], 0.02, 0.2, &options, seed)
    };
    assert_eq!(outcome(3), outcome(3));
    assert_ne!(outcome(3), outcome(4));
}

#[test]
fn a_class_runs_by_deadline_and_after_those_above_it() {
    let mut random = Xorshift::new(8);
    for policy in [Policy::Greedy, Policy::Adaptive] {
        let mut scheduler = Scheduler::new(&Batching { policy, max_batch: 7, ..Batching::default() });
        let mut known = HashMap::new();
        for _ in 0..500 {
            let deadline = Duration::from_secs(100) + ms(random.below(1_000_000) as f64);
            let priority = random.below(3) as u8;
            let key = scheduler.offer(Request { deadline, priority, ..Request::default() }, Duration::ZERO).unwrap();
            known.insert(key, (priority, deadline));
        }
        let (mut batch, mut order) = (Batch::default(), Vec::new());
        while scheduler.next(Duration::ZERO, &mut batch) == Step::Run {
            order.extend(batch.keys.iter().map(|key| known[key]));
            scheduler.finished(&batch, ms(1.0), Duration::ZERO);
        }
        assert_eq!(order.len(), 500);
        assert!(order.is_sorted(), "{policy:?}");
    }
}

/// Shares of on-time answers of a flood and of a party with 1 % of the requests, which differ as `of` says.
fn flood(of: fn(usize) -> Request, seed: u64) -> [f64; 2] {
    let device = Device::ALL[2];
    let mut random = Xorshift::new(seed);
    let mut scheduler = Scheduler::new(&Batching { max_batch: 32, queue_limit: 1_000_000, ..Batching::default() });
    let arrivals = Source::Poisson.arrivals(60_000, 3.0 * device.capacity(), seed);
    let (mut came, mut now_s, mut batch) = (0, 0.0, Batch::default());
    let (mut offered, mut met) = ([0.0; 2], [0.0; 2]);
    let mut known: HashMap<Key, (usize, f64)> = HashMap::new();
    while came < arrivals.len() {
        while came < arrivals.len() && arrivals[came] <= now_s {
            let who = usize::from(random.below(100) == 0);
            offered[who] += 1.0;
            let request = Request { deadline: Duration::from_secs_f64(arrivals[came] + 0.02), ..of(who) };
            if let Ok(key) = scheduler.offer(request, Duration::from_secs_f64(arrivals[came])) {
                known.insert(key, (who, arrivals[came]));
            }
            came += 1;
        }
        match scheduler.next(Duration::from_secs_f64(now_s), &mut batch) {
            Step::Run => {
                let took_s = device.time_s(batch.rows as usize) * (0.1 * normal(&mut random)).exp();
                now_s += took_s;
                for key in &batch.keys {
                    let (who, at_s) = known[key];
                    met[who] += f64::from(u8::from(now_s <= at_s + 0.02));
                }
                scheduler.finished(&batch, Duration::from_secs_f64(took_s), Duration::from_secs_f64(now_s));
            }
            Step::Wait(until) => now_s = until.as_secs_f64(),
            Step::Idle => now_s = arrivals.get(came).copied().unwrap_or(now_s),
        }
    }
    [met[0] / offered[0], met[1] / offered[1]]
}

#[test]
fn a_flood_does_not_cost_others_their_deadlines() {
    let tenant = flood(|who| Request { tenant: who as u32, ..Request::default() }, 5);
    let model = flood(|who| Request { model: who as u32, ..Request::default() }, 5);
    println!("flood and 1 % beside it: tenants {tenant:.3?}, models {model:.3?}");
    assert!(tenant[1] >= 0.99 && model[1] >= 0.99, "{tenant:?} {model:?}");
    assert!(tenant[0] > 0.25 && model[0] > 0.2, "the flood gets what is left: {tenant:?} {model:?}");
}

#[test]
fn weights_share_what_is_too_little_for_two() {
    for by_model in [false, true] {
        let mut scheduler =
            Scheduler::new(&Batching { policy: Policy::Greedy, max_batch: 8, queue_limit: 100_000, ..Batching::default() });
        scheduler.weigh_model(1, if by_model { 3.0 } else { 1.0 });
        scheduler.weigh_tenant(1, if by_model { 1.0 } else { 3.0 });
        let mut batch = Batch::default();
        let (mut owner, mut had) = (HashMap::new(), [0u32; 2]);
        for i in 0..40_000u32 {
            let who = i % 2;
            let (model, tenant) = if by_model { (who, 0) } else { (0, who) };
            let request = Request { model, tenant, deadline: Duration::from_secs(1000), ..Request::default() };
            owner.insert(scheduler.offer(request, Duration::ZERO).unwrap(), who as usize);
        }
        for i in 0..2000u32 {
            assert_eq!(scheduler.next(ms(f64::from(i)), &mut batch), Step::Run);
            batch.keys.iter().for_each(|key| had[owner[key]] += 1);
            scheduler.finished(&batch, ms(1.0), ms(f64::from(i) + 1.0));
        }
        let ratio = f64::from(had[1]) / f64::from(had[0]);
        assert!((2.7..3.3).contains(&ratio), "by model {by_model}: {had:?}");
    }
}

/// Eight shapes of one model beside one of another: each model gets half of the device, not each shape a ninth.
#[test]
fn the_kinds_of_a_model_share_its_share() {
    let mut scheduler =
        Scheduler::new(&Batching { policy: Policy::Greedy, max_batch: 8, queue_limit: 100_000, ..Batching::default() });
    let (mut batch, mut owner, mut had, mut kinds) = (Batch::default(), HashMap::new(), [0u32; 2], HashSet::new());
    for i in 0..40_000u32 {
        let (model, kind) = (i % 2, if i % 2 == 0 { i / 2 % 8 } else { 0 });
        let deadline = Duration::from_secs(1000) + Duration::from_micros(i.into());
        let request = Request { model, kind, deadline, ..Request::default() };
        owner.insert(scheduler.offer(request, Duration::ZERO).unwrap(), (model, kind));
    }
    for i in 0..2000u32 {
        assert_eq!(scheduler.next(ms(f64::from(i)), &mut batch), Step::Run);
        assert!(batch.keys.iter().all(|key| owner[key] == (batch.model, batch.kind)), "kinds are not mixed");
        had[batch.model as usize] += batch.rows;
        kinds.insert((batch.model, batch.kind));
        scheduler.finished(&batch, ms(1.0), ms(f64::from(i) + 1.0));
    }
    let ratio = f64::from(had[1]) / f64::from(had[0]);
    assert!((0.9..1.1).contains(&ratio) && kinds.len() == 9, "{had:?} {kinds:?}");
}

#[test]
fn rejections_say_what_was_missing() {
    let mut scheduler = Scheduler::new(&Batching { max_batch: 8, queue_limit: 2, ..Batching::default() });
    let mut offer = |rows, deadline_ms| {
        let request = Request { rows, deadline: ms(deadline_ms), ..Request::default() };
        scheduler.offer(request, ms(10.0)).map(|_| ())
    };
    assert_eq!(offer(9, 50.0), Err(Rejection::TooLarge { rows: 9, max: 8 }));
    assert_eq!(offer(0, 50.0), Err(Rejection::Empty));
    assert_eq!(offer(1, 5.0), Err(Rejection::TooLate { needed: Duration::ZERO, left: Duration::ZERO }));
    assert_eq!((offer(1, 50.0), offer(1, 50.0)), (Ok(()), Ok(())));
    assert_eq!(offer(1, 50.0), Err(Rejection::QueueFull { limit: 2 }));
    assert!(Rejection::QueueFull { limit: 2 }.to_string().contains("queue_limit"));
    // Once it is known what a batch takes, less time than that is too late at once, if others wait.
    let mut scheduler = Scheduler::new(&Batching::default());
    let mut batch = Batch::default();
    for i in 0..20 {
        let now = ms(20.0 * f64::from(i));
        scheduler.offer(Request { deadline: now + ms(40.0), ..Request::default() }, now).unwrap();
        assert_eq!(scheduler.next(now, &mut batch), Step::Run);
        scheduler.finished(&batch, ms(10.0), now + ms(10.0));
    }
    let now = ms(1000.0);
    scheduler.offer(Request { deadline: now + ms(40.0), ..Request::default() }, now).unwrap();
    let late = scheduler.offer(Request { deadline: now + ms(4.0), ..Request::default() }, now).unwrap_err();
    let Rejection::TooLate { needed, left } = late else { panic!("{late:?}") };
    assert!(left == ms(4.0) && (needed.as_secs_f64() - 0.01).abs() < 1e-3, "{late:?}");
}

#[test]
fn a_wrong_memory_of_latency_does_not_lock_everyone_out() {
    let mut scheduler = Scheduler::new(&Batching::default());
    let (mut batch, mut met) = (Batch::default(), 0);
    for i in 0..400u32 {
        let now = ms(25.0 * f64::from(i));
        let took = ms(if i < 30 { 200.0 } else { 2.0 });
        let Ok(_) = scheduler.offer(Request { deadline: now + ms(20.0), ..Request::default() }, now) else { continue };
        if scheduler.next(now, &mut batch) == Step::Run {
            scheduler.finished(&batch, took, now + took.min(ms(20.0)));
            met += u32::from(took < ms(20.0));
        }
    }
    assert!(met > 300, "{met} of 370 in time after the device recovered");
}

#[test]
fn at_rest_nothing_waits_and_under_overload_the_device_is_used() {
    let noise_free = Study { target_s: 0.02, noise: 0.0, requests: 2000, seeds: vec![11] };
    let own = contenders().into_iter().find(|c| c.name == "halfbyte").unwrap();
    for row in halfbyte::serve::simulate::rows(&noise_free, &[Source::Poisson], || ()) {
        let figures = noise_free.figures(&row, &own);
        assert!(figures.added_ms < 0.01, "{figures:?}");
        assert!(figures.rate_of_oracle > 0.9 && figures.goodput > 0.9, "{figures:?}");
    }
}

#[test]
fn nobody_beats_the_optimum() {
    for seed in 0..20 {
        let device = Device::ALL[seed as usize % 3];
        let arrivals = Source::Bursts.arrivals(600, 1.2 * device.capacity(), seed);
        let options = Batching { max_batch: device.max_batch, queue_limit: usize::MAX, ..Batching::default() };
        let outcome = run_scheduler(&arrivals, &device, 0.02, 0.0, &options, seed);
        let optimum = fewest_lost(&arrivals, &device, 0.02, arrivals.len()).unwrap();
        assert!(
            outcome.offered - outcome.in_time >= optimum,
            "seed {seed}: {} lost, optimum {optimum}",
            outcome.offered - outcome.in_time
        );
    }
}
