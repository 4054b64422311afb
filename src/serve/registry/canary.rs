//! A version on trial: it gets a share of a model's requests, a larger one step by step while it holds, and none once it does worse than it
//! may. Only figures: whoever drives it says what became of requests and what time it is, so that it can be simulated.

use std::collections::VecDeque;
use std::time::Duration;

/// How much worse a version may be: up to `absolute`, and up to `relative` times what the others do. The larger of both counts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Bound {
    /// In the figure's own unit; 0 leaves it to the others.
    #[cfg_attr(feature = "serde", serde(default))]
    pub absolute: f64,
    /// Times the figure of the other versions; 0 leaves it to `absolute`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub relative: f64,
}

/// How a version on trial goes on, and what ends its trial.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Rules {
    /// Its share of the requests, step by step, each above 0 and at most 1. After the last one it gets all.
    pub steps: Vec<f64>,
    /// How long it must hold at each step, in seconds.
    pub hold_s: f64,
    /// How many requests it must have answered at each step.
    pub step_requests: usize,
    /// How many requests it, and for relative bounds the others, must have had before its trial can end badly.
    pub min_requests: usize,
    /// Figures are those of so many last requests.
    pub window: usize,
    /// Share of requests that fail.
    pub error_rate: Bound,
    /// The 99th percentile of latencies, in milliseconds.
    pub p99_ms: Bound,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            steps: vec![0.05, 0.25, 0.5],
            hold_s: 60.0,
            step_requests: 100,
            min_requests: 20,
            window: 1000,
            error_rate: Bound { absolute: 0.01, relative: 2.0 },
            p99_ms: Bound { absolute: 0.0, relative: 1.5 },
        }
    }
}

impl Rules {
    /// Errors with the field, what is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let share = |s: &f64| *s > 0.0 && *s <= 1.0;
        let bound = |b: &Bound| [b.absolute, b.relative].iter().all(|v| v.is_finite() && *v >= 0.0);
        let rules = [
            (
                !self.steps.is_empty() && self.steps.iter().all(share),
                "steps: shares are above 0 and at most 1, and there is one at least",
            ),
            (self.steps.is_sorted(), "steps: shares grow from step to step"),
            (self.hold_s.is_finite() && self.hold_s >= 0.0, "hold_s: seconds, 0 or more"),
            ((10..=100_000).contains(&self.window), "window: between 10 and 100000 requests"),
            (self.min_requests <= self.window, "min_requests: no more than window has"),
            (bound(&self.error_rate), "error_rate: absolute and relative are numbers of 0 or more"),
            (bound(&self.p99_ms), "p99_ms: absolute and relative are numbers of 0 or more"),
        ];
        rules.iter().find(|(right, _)| !right).map_or(Ok(()), |(_, wrong)| Err(wrong.to_string()))
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// It got no answer, through no fault of its caller's or of the queue's.
    pub failed: bool,
    /// From its submission to its reply, or to its failure.
    pub latency: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing.
    Stay,
    /// The version gets a larger share.
    Step,
    /// It held to the end: it gets all requests.
    Promote,
    /// It gets none: why.
    RollBack(String),
}

/// Figures of the last requests of one side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Figures {
    /// Requests in the window.
    pub requests: usize,
    /// Of those, the ones that failed.
    pub errors: usize,
    /// Their latency.
    pub p99_ms: f64,
}

/// A trial as it stands.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CanaryStatus {
    /// Share of requests that the version gets.
    pub share: f64,
    /// The step, from 1, and how many there are.
    pub step: [usize; 2],
    /// Requests at this step.
    pub step_requests: usize,
    /// The version on trial.
    pub canary: Figures,
    /// The others.
    pub incumbent: Figures,
    /// Why it does not go on although its time at this step is over.
    pub held_by: Option<String>,
}

/// The last requests of one side.
#[derive(Debug, Clone, Default)]
struct Window {
    outcomes: VecDeque<Outcome>,
    errors: usize,
}

impl Window {
    fn push(&mut self, outcome: Outcome, most: usize) {
        self.errors += usize::from(outcome.failed);
        self.outcomes.push_back(outcome);
        while self.outcomes.len() > most {
            self.errors -= usize::from(self.outcomes.pop_front().is_some_and(|o| o.failed));
        }
    }

    fn figures(&self) -> Figures {
        let mut all: Vec<Duration> = self.outcomes.iter().map(|o| o.latency).collect();
        let rank = (all.len() * 99).div_ceil(100).saturating_sub(1);
        let p99_ms = if all.is_empty() { 0.0 } else { all.select_nth_unstable(rank).1.as_secs_f64() * 1e3 };
        Figures { requests: all.len(), errors: self.errors, p99_ms }
    }

    fn slower(&self, than_ms: f64) -> usize {
        self.outcomes.iter().filter(|o| o.latency.as_secs_f64() * 1e3 > than_ms).count()
    }
}

/// A trial.
#[derive(Debug, Clone)]
pub struct Canary {
    rules: Rules,
    step: usize,
    began: Duration,
    step_requests: usize,
    own: Window,
    others: Window,
    /// Requests slower than this are looked at when they come: the latency that was allowed at the last look.
    slow_ms: f64,
    held_by: Option<String>,
}

/// Requests that are neither failed nor slow are looked at in such numbers.
const LOOK: usize = 32;

/// How sure a trial must be before it ends badly: that a version which is just as bad as it may be shows such figures has odds of at most
/// e to the minus this, at one look.
const SURE: f64 = 9.0;

impl Canary {
    /// Begins a trial.
    pub fn new(rules: Rules, now: Duration) -> Self {
        let (own, others) = Default::default();
        Canary { rules, step: 0, began: now, step_requests: 0, own, others, slow_ms: 0.0, held_by: None }
    }

    /// The version's share of requests.
    pub fn share(&self) -> f64 {
        self.rules.steps.get(self.step).copied().unwrap_or(1.0)
    }

    /// Counts a request that another version answered.
    pub fn record_other(&mut self, outcome: Outcome) {
        self.others.push(outcome, self.rules.window);
    }

    /// Counts a request of the version on trial; what is to be done now. Time never goes back.
    pub fn record(&mut self, outcome: Outcome, now: Duration) -> Verdict {
        self.own.push(outcome, self.rules.window);
        self.step_requests += 1;
        let is_over = self.step_requests >= self.rules.step_requests && (now - self.began).as_secs_f64() >= self.rules.hold_s;
        let is_slow = outcome.latency.as_secs_f64() * 1e3 > self.slow_ms;
        if !(is_over || is_slow || outcome.failed || self.step_requests.is_multiple_of(LOOK)) {
            return Verdict::Stay;
        }
        let faults = self.faults();
        if let Some((why, _)) = faults.iter().find(|(_, is_sure)| *is_sure) {
            return Verdict::RollBack(why.clone());
        }
        self.held_by = faults.into_iter().next().map(|(why, _)| why).filter(|_| is_over);
        if !is_over || self.held_by.is_some() {
            return Verdict::Stay;
        }
        (self.step, self.began, self.step_requests) = (self.step + 1, now, 0);
        if self.step < self.rules.steps.len() { Verdict::Step } else { Verdict::Promote }
    }

    /// In what it is worse than it may be, and whether that is no chance.
    fn faults(&mut self) -> Vec<(String, bool)> {
        let (own, others) = (self.own.figures(), self.others.figures());
        let (n, known) = (own.requests, others.requests >= self.rules.min_requests.max(1));
        let limit = |bound: Bound, theirs: f64| bound.absolute.max(if known { bound.relative * theirs } else { 0.0 });
        let mut faults = Vec::new();
        let mut judge = |worse: usize, allowed: f64, why: &dyn Fn() -> String| {
            if worse as f64 > allowed * n as f64 {
                faults.push((why(), n >= self.rules.min_requests && surprise(worse, n, allowed) > SURE));
            }
        };
        let rate = limit(self.rules.error_rate, others.errors as f64 / others.requests.max(1) as f64);
        let decides = |bound: Bound| bound.absolute > 0.0 || (bound.relative > 0.0 && known);
        if decides(self.rules.error_rate) {
            judge(own.errors, rate, &|| {
                let (share, rate) = (own.errors as f64 / n as f64 * 100.0, rate * 100.0);
                format!("error rate {share:.1} % ({} of {n} requests), at most {rate:.1} % are allowed", own.errors)
            });
        }
        if decides(self.rules.p99_ms) {
            let most_ms = limit(self.rules.p99_ms, others.p99_ms);
            let slower = self.own.slower(most_ms);
            self.slow_ms = most_ms;
            judge(slower, 0.01, &|| {
                format!("p99 {:.1} ms, at most {most_ms:.1} ms are allowed ({slower} of {n} requests took longer)", own.p99_ms)
            });
        }
        faults
    }

    /// How it stands.
    pub fn status(&self) -> CanaryStatus {
        CanaryStatus {
            share: self.share(),
            step: [self.step + 1, self.rules.steps.len()],
            step_requests: self.step_requests,
            canary: self.own.figures(),
            incumbent: self.others.figures(),
            held_by: self.held_by.clone(),
        }
    }
}

/// How surprising it is that at least `k` of `n` requests are bad where a share of at most `p` is: minus the logarithm of an upper bound of
/// that probability. Source: H. Chernoff, "A measure of asymptotic efficiency for tests of a hypothesis", 1952.
fn surprise(k: usize, n: usize, p: f64) -> f64 {
    let share = k as f64 / n as f64;
    let part = |q: f64, p: f64| if q > 0.0 { q * (q / p).ln() } else { 0.0 };
    n as f64 * (part(share, p) + part(1.0 - share, 1.0 - p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    /// A version: how often it fails, its latency at the median, and by how many times that is more in 16 % of requests (log-normal).
    #[derive(Clone, Copy)]
    struct Behaviour(f64, f64, f64);

    impl Behaviour {
        fn outcome(self, random: &mut Xorshift) -> Outcome {
            let normal = (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos();
            let ms = self.1 * (self.2.ln() * normal).exp();
            Outcome { failed: random.unit() < self.0, latency: Duration::from_secs_f64(ms / 1e3) }
        }
    }

    /// How a trial ends, and requests that the canary had until then; a request each millisecond.
    fn trial(rules: &Rules, [own, others]: [Behaviour; 2], seed: u64, most: usize) -> (Verdict, usize) {
        let (mut canary, mut random, mut had) = (Canary::new(rules.clone(), Duration::ZERO), Xorshift::new(seed), 0);
        for ms in 0..most as u64 {
            if random.unit() >= canary.share() {
                canary.record_other(others.outcome(&mut random));
                continue;
            }
            had += 1;
            let verdict = canary.record(own.outcome(&mut random), Duration::from_millis(ms));
            if matches!(verdict, Verdict::Promote | Verdict::RollBack(_)) {
                return (verdict, had);
            }
        }
        (Verdict::Stay, had)
    }

    fn trials(rules: &Rules, sides: [Behaviour; 2], most: usize) -> (usize, usize, f64) {
        let all: Vec<_> = (1..=TRIALS).map(|seed| trial(rules, sides, seed, most)).collect();
        let back: Vec<usize> = all.iter().filter(|(v, _)| matches!(v, Verdict::RollBack(_))).map(|(_, had)| *had).collect();
        let promoted = all.iter().filter(|(v, _)| *v == Verdict::Promote).count();
        let mean = back.iter().sum::<usize>() as f64 / back.len().max(1) as f64;
        println!("{promoted} promoted, {} rolled back after {mean:.0} requests in the mean", back.len());
        (promoted, back.len(), mean)
    }

    const TRIALS: u64 = 40;
    const FINE: Behaviour = Behaviour(0.002, 10.0, 1.3);

    /// Steps of five seconds: 5000 requests of the model.
    fn brisk() -> Rules {
        Rules { hold_s: 5.0, ..Rules::default() }
    }

    #[test]
    fn one_that_is_as_good_is_promoted_step_by_step() {
        let (promoted, back, _) = trials(&brisk(), [FINE, FINE], 100_000);
        assert!(promoted == 40 && back == 0, "{promoted} {back}");
        let heavy = Behaviour(0.002, 10.0, 3.0);
        let (promoted, back, _) = trials(&brisk(), [heavy, heavy], 100_000);
        assert!(promoted >= 39 && back <= 1, "tails that are 13 times the median: {promoted} {back}");
        let mut canary = Canary::new(Rules { step_requests: 10, hold_s: 5.0, ..Rules::default() }, Duration::ZERO);
        let mut shares = vec![canary.share()];
        for second in 0..30 {
            if canary.record(FINE.outcome(&mut Xorshift::new(second)), Duration::from_secs(second)) != Verdict::Stay {
                shares.push(canary.share());
            }
        }
        assert_eq!(shares, [0.05, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn one_that_fails_or_is_slow_is_rolled_back_before_many_requests_met_it() {
        let rules = brisk();
        for (bad, most) in [
            (Behaviour(1.0, 1.0, 1.3), 20.0),
            (Behaviour(0.5, 10.0, 1.3), 25.0),
            (Behaviour(0.1, 10.0, 1.3), 100.0),
            (Behaviour(0.04, 10.0, 1.3), 500.0),
            (Behaviour(0.002, 40.0, 1.3), 21.0),
            (Behaviour(0.002, 20.0, 1.3), 100.0),
            (Behaviour(0.002, 17.0, 1.3), 500.0),
        ] {
            let (promoted, back, mean) = trials(&rules, [bad, FINE], 100_000);
            assert!(promoted == 0 && back == 40 && mean <= most, "{promoted} promoted, {back} back after {mean}");
        }
    }

    #[test]
    fn one_that_is_just_as_bad_as_it_may_be_is_hardly_ever_rolled_back() {
        let rules = Rules { steps: vec![0.5], hold_s: 1e9, ..Rules::default() };
        let (_, back, _) = trials(&rules, [Behaviour(0.01, 10.0, 1.3), FINE], 100_000);
        assert!(back <= 2, "{back} of 40 trials of 50000 requests");
    }

    #[test]
    fn what_is_worse_but_perhaps_by_chance_holds_the_step_and_says_so() {
        let rules = Rules { step_requests: 20, hold_s: 0.0, ..Rules::default() };
        let mut canary = Canary::new(rules, Duration::ZERO);
        let mut record = |failed| canary.record(Outcome { failed, latency: Duration::from_millis(1) }, Duration::ZERO);
        assert_eq!(record(true), Verdict::Stay);
        (0..40).for_each(|_| assert_eq!(record(false), Verdict::Stay));
        let status = canary.status();
        assert_eq!(status.held_by.as_deref(), Some("error rate 2.4 % (1 of 41 requests), at most 1.0 % are allowed"));
        assert_eq!((status.step, status.share, status.canary.errors), ([1, 3], 0.05, 1));
    }

    #[test]
    fn an_incumbent_that_fails_as_often_is_no_reason_to_go_back() {
        let flaky = Behaviour(0.05, 10.0, 1.3);
        let (promoted, back, _) = trials(&brisk(), [flaky, flaky], 100_000);
        assert!(promoted >= 38 && back == 0, "{promoted} {back}");
        let absolute = Rules { error_rate: Bound { absolute: 0.01, relative: 0.0 }, ..brisk() };
        let (_, back, _) = trials(&absolute, [flaky, flaky], 100_000);
        assert_eq!(back, 40, "unless only what it does itself counts");
    }

    #[test]
    fn relative_bounds_wait_for_the_others() {
        let rules = Rules { error_rate: Bound { absolute: 0.0, relative: 2.0 }, ..Rules::default() };
        let mut canary = Canary::new(rules, Duration::ZERO);
        let bad = Outcome { failed: true, latency: Duration::from_secs(1) };
        (0..100).for_each(|_| assert_eq!(canary.record(bad, Duration::ZERO), Verdict::Stay));
        (0..20).for_each(|_| canary.record_other(Outcome { failed: false, latency: Duration::from_millis(1) }));
        assert!(matches!(canary.record(bad, Duration::ZERO), Verdict::RollBack(why) if why.contains("error rate 100.0 %")));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused_by_field() {
        let wrong = [
            (Rules { steps: vec![], ..Rules::default() }, "steps"),
            (Rules { steps: vec![0.5, 0.1], ..Rules::default() }, "steps"),
            (Rules { steps: vec![1.5], ..Rules::default() }, "steps"),
            (Rules { hold_s: f64::NAN, ..Rules::default() }, "hold_s"),
            (Rules { window: 1, ..Rules::default() }, "window"),
            (Rules { p99_ms: Bound { absolute: -1.0, relative: 0.0 }, ..Rules::default() }, "p99_ms"),
        ];
        assert_eq!(Rules::default().check(), Ok(()));
        for (rules, field) in wrong {
            assert!(rules.check().is_err_and(|why| why.starts_with(field)), "{field}");
        }
    }
}
