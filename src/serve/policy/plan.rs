//! The search for the next batch: every candidate (rows given up, rows run) is followed by a simple rule until all that waits is done, and what
//! is lost on the way decides. This is policy improvement by rollout (Bertsekas and Tsitsiklis, 1996) with expectations in place of samples:
//! lateness counts by its probability, arrivals to come by their rate.

use super::curve::Curve;
use super::noise::Noise;

/// A batch should fit its first deadline this many times, and a share of the noise's spread more.
const MARGIN: [f64; 2] = [1.1, 1.5];
/// Arrivals to come are expected to be this many times as many as they were: too few cost more than too many.
const CROWD: f64 = 2.5;
/// Batches that are looked ahead.
const STEPS: usize = 12;
/// What the time that rows of a batch take is worth, as a share of those rows: with time to spare, and with none.
const TIME_VALUE: [f64; 2] = [0.2, 0.97];
/// Loads between which that value rises.
const LOADS: [f64; 2] = [0.9, 1.1];
/// A long load below which small batches are affordable.
const SPARE: f64 = 0.6;
/// How many of the first rows may be given up, as candidates.
const DROPS: [usize; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192];
/// Smaller batches, as candidates.
const PARTS: [f64; 3] = [0.85, 0.7, 0.5];

/// What waits, row by row.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Seconds until each row is due, in the order in which rows are run.
    pub due_s: &'a [f64],
    /// Rows that are part of the next batch whatever is chosen.
    pub fixed: u32,
    /// Seconds until the first of those is due.
    pub fixed_due_s: f64,
    /// Seconds from arrival to deadline.
    pub target_s: f64,
    /// Rows that arrive per second, of late.
    pub short_rate: f64,
    /// The same over a longer time.
    pub long_rate: f64,
}

/// What to do: give up the first rows, and run those that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Choice {
    pub give_up: usize,
    pub run: usize,
}

/// How many times a batch should fit its first deadline.
pub fn margin(noise: &Noise) -> f64 {
    MARGIN[0] + MARGIN[1] * noise.spread()
}

/// A search over one view.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Expected times of batches.
    pub curve: &'a Curve,
    /// How far they stray.
    pub noise: &'a Noise,
    /// What waits.
    pub view: View<'a>,
}

struct Search<'a> {
    plan: Plan<'a>,
    rate: f64,
    margin: f64,
    floor: u32,
    time_value: f64,
    /// The most rows of the next batch.
    bound: usize,
    best: Choice,
    loss: f64,
}

impl Plan<'_> {
    /// The choice that loses least.
    pub fn choose(self) -> Choice {
        let view = &self.view;
        let load = view.short_rate / self.curve.rate;
        let scarce = ((load - LOADS[0]) / (LOADS[1] - LOADS[0])).clamp(0.0, 1.0);
        let time_value = TIME_VALUE[0] + (TIME_VALUE[1] - TIME_VALUE[0]) * scarce;
        let share = if load > LOADS[1] {
            2
        } else if view.long_rate > SPARE * self.curve.rate {
            1
        } else {
            0
        };
        let rate = (CROWD * view.short_rate).max(1.0);
        let floor = self.curve.floors[share];
        let nothing = Choice { give_up: view.due_s.len(), run: 0 };
        let bound = self.bound();
        if bound == 0 {
            return Choice { give_up: 0, run: 0 };
        }
        let mut search =
            Search { plan: self, rate, margin: margin(self.noise), floor, time_value, bound, best: nothing, loss: f64::INFINITY };
        search.all();
        search.best
    }

    /// The most rows that may run besides the fixed ones so that those are in time but for one case in 200; no bound where they cannot be.
    fn bound(&self) -> usize {
        let View { fixed, fixed_due_s, .. } = self.view;
        if fixed == 0 || self.curve.time(fixed) > fixed_due_s {
            return usize::MAX;
        }
        self.curve.fit(fixed_due_s / self.noise.ratio(0.005), self.curve.longest()).saturating_sub(fixed) as usize
    }

    /// The most rows of a batch that begins after `wait_s`, has `fixed` rows besides, and whose first row is due in `due_s`.
    fn fit(&self, due_s: f64, wait_s: f64, fixed: u32, bound: usize) -> usize {
        let seconds = (due_s - wait_s) / margin(self.noise);
        let bound = bound.min(self.curve.most as usize) as u32 + fixed;
        self.curve.fit(seconds, bound).saturating_sub(fixed) as usize
    }
}

impl Search<'_> {
    fn queued(&self) -> usize {
        self.plan.view.due_s.len()
    }

    /// Seconds until row `i` is due; beyond those that wait it is one that will come.
    fn due_s(&self, i: usize) -> f64 {
        let view = &self.plan.view;
        view.due_s.get(i).copied().unwrap_or_else(|| (i - view.due_s.len()) as f64 / self.rate + view.target_s)
    }

    /// The rule: of the rows from `from`, gives up the first until a batch of a worthwhile size fits its first deadline; where none does, the best
    /// rate that fits.
    fn rule(&self, wait_s: f64, from: usize, end: usize, fixed: u32) -> Choice {
        let plan = &self.plan;
        let curve = plan.curve;
        let worthwhile = |i: usize| {
            let rows = ((end - i).min(self.floor as usize) as u32 + fixed).min(curve.longest());
            curve.time(rows) * self.margin <= self.due_s(i) - wait_s
        };
        let Some(first) = (from..end).find(|&i| worthwhile(i)) else { return self.salvage(wait_s, from, end, fixed) };
        let fits = plan.fit(self.due_s(first), wait_s, fixed, end - first);
        let run = if first + fits < end { (curve.best(fits as u32) as usize).min(fits).max(1) } else { fits };
        Choice { give_up: first - from, run }
    }

    /// The batch of the best rate among those that fit at all.
    fn salvage(&self, wait_s: f64, from: usize, end: usize, fixed: u32) -> Choice {
        let (mut best, mut speed) = (Choice { give_up: end - from, run: 0 }, 0.0);
        for i in from..end {
            let run = self.plan.fit(self.due_s(i), wait_s, fixed, end - i);
            let found = run as f64 / self.plan.curve.time(run as u32 + fixed);
            if run > 0 && found > speed {
                (best, speed) = (Choice { give_up: i - from, run }, found);
            }
        }
        best
    }

    /// Rows lost when `first` is followed by the rule, and the value of the time it takes.
    fn follow(&self, first: Choice) -> f64 {
        let (plan, queued) = (&self.plan, self.queued());
        let (mut time_s, mut at, mut lost) = (0.0, first.give_up, first.give_up as f64);
        let (mut run, mut fixed) = (first.run, plan.view.fixed);
        for _ in 0..STEPS {
            let took_s = plan.curve.time(run as u32 + fixed);
            for i in at..at + run {
                let late = plan.noise.late((self.due_s(i) - time_s) / took_s);
                lost += late;
                if late < 1e-3 {
                    break;
                }
            }
            (time_s, at, fixed) = (time_s + took_s, at + run, 0);
            if at >= queued {
                break;
            }
            let next = self.rule(time_s, at, queued + (self.rate * time_s) as usize, 0);
            (lost, at, run) = (lost + next.give_up as f64, at + next.give_up, next.run);
            if run == 0 {
                break;
            }
        }
        lost + self.time_value * (plan.curve.rate * time_s - (at as f64 - queued as f64))
    }

    fn consider(&mut self, give_up: usize, run: usize) {
        let run = run.min(self.bound);
        if run == 0 || give_up + run > self.queued() || run as u32 + self.plan.view.fixed > self.plan.curve.longest() {
            return;
        }
        let loss = self.follow(Choice { give_up, run });
        if loss < self.loss - 1e-9 {
            (self.best, self.loss) = (Choice { give_up, run }, loss);
        }
    }

    fn consider_parts(&mut self, give_up: usize, run: usize) {
        let run = run.min(self.bound);
        PARTS.iter().for_each(|part| self.consider(give_up, ((run as f64 * part) as usize).max(1)));
    }

    fn all(&mut self) {
        let (queued, fixed) = (self.queued(), self.plan.view.fixed);
        let rule = self.rule(0.0, 0, queued, fixed);
        self.consider(rule.give_up, rule.run);
        self.best = if rule.run == 0 { rule } else { self.best };
        if rule.run > 0 && rule.give_up > 0 {
            self.consider_parts(rule.give_up, rule.run);
        }
        for give_up in DROPS.into_iter().filter(|&d| d < queued && d <= 2 * rule.give_up + 4) {
            let due_s = self.due_s(give_up);
            let fits = self.plan.fit(due_s, 0.0, fixed, queued - give_up);
            if fits == 0 {
                continue;
            }
            self.consider(give_up, fits);
            let best = self.plan.curve.best(fits as u32) as usize;
            if best != fits {
                self.consider(give_up, best);
            }
            self.consider_smaller(give_up, best);
            let risky = self.plan.fit(due_s * self.margin, 0.0, fixed, queued - give_up);
            if risky > fits {
                self.consider(give_up, risky);
                self.consider(give_up, (fits + risky) / 2);
            }
        }
    }

    /// The next smaller sizes: whole tiles where rows are rounded to tiles, else parts.
    fn consider_smaller(&mut self, give_up: usize, best: usize) {
        match self.plan.curve.step() as usize {
            1 => self.consider_parts(give_up, best),
            step => (1..4).filter(|i| i * step < best).for_each(|i| self.consider(give_up, best - i * step)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::latency::Latency;
    use super::*;

    /// A device that takes 0.5 ms and 1 ms for each row.
    fn curve(noise: f64) -> (Latency, Curve) {
        let (mut latency, mut curve) = (Latency::default(), Curve::default());
        for i in 0..200u32 {
            let rows = 1 + i % 16;
            latency.learn(rows, 1, (0.5e-3 + 1e-3 * f64::from(rows)) * (if i % 2 == 0 { noise } else { -noise }).exp());
        }
        curve.update(&latency, 32, 1, 0.02);
        (latency, curve)
    }

    fn choose(due_s: &[f64], rate: f64) -> Choice {
        let (latency, curve) = curve(0.0);
        let view = View { due_s, fixed: 0, fixed_due_s: 0.0, target_s: 0.02, short_rate: rate, long_rate: rate };
        Plan { curve: &curve, noise: &latency.noise, view }.choose()
    }

    #[test]
    fn what_fits_runs_at_once_and_whole() {
        assert_eq!(choose(&[0.02, 0.02, 0.02], 10.0), Choice { give_up: 0, run: 3 });
    }

    #[test]
    fn nobody_is_made_late_by_those_who_can_wait() {
        let mut due = vec![0.004];
        due.extend([0.02; 10]);
        let choice = choose(&due, 10.0);
        assert_eq!(choice.give_up, 0);
        assert!(choice.run <= 3, "{choice:?}");
    }

    #[test]
    fn those_are_given_up_who_cost_the_others_their_deadlines() {
        let mut due = vec![0.0016; 2];
        due.extend([0.0105; 10]);
        let choice = choose(&due, 2000.0);
        assert!((2..4).contains(&choice.give_up) && choice.run >= 7, "{choice:?}");
        assert_eq!(choose(&[-0.001, -0.001], 10.0), Choice { give_up: 2, run: 0 });
    }

    #[test]
    fn rows_that_are_due_whatever_else_runs_bound_the_batch() {
        let (latency, curve) = curve(0.0);
        let view =
            View { due_s: &[0.02; 16], fixed: 1, fixed_due_s: 0.006, target_s: 0.02, short_rate: 1200.0, long_rate: 1200.0 };
        let choice = Plan { curve: &curve, noise: &latency.noise, view }.choose();
        assert!(choice.run <= 4, "{choice:?}");
    }
}
