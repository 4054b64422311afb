//! What a model runs next, by the policy: how many of the first requests are given up, and how many of those that follow are run.

use super::lane::{Lane, Order};
use super::options::{Batching, Policy};
use super::queue::Entry;
use super::slots::Slots;
use crate::serve::policy::{Choice, Latency, Plan, View, margin};

/// A policy's answer, in requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Decision {
    /// Expel the first, then run the next.
    #[allow(missing_docs)]
    Take { give_up: usize, run: usize },
    /// Wait until then.
    Wait(u64),
}

/// What a decision is made of.
pub(super) struct Question<'a> {
    pub options: &'a Batching,
    pub slots: &'a Slots,
    pub lane: &'a mut Lane,
    pub latency: &'a Latency,
    pub order: &'a Order,
    /// Reused memory: seconds until each row is due.
    pub due_s: &'a mut Vec<f64>,
    pub now_ns: u64,
    /// The device has had nothing to run for long.
    pub rested: bool,
    pub draining: bool,
}

/// Seconds from `now_ns` to a deadline; negative when it has passed.
pub(super) fn left_s(deadline_ns: u64, now_ns: u64) -> f64 {
    if deadline_ns >= now_ns { (deadline_ns - now_ns) as f64 * 1e-9 } else { (now_ns - deadline_ns) as f64 * -1e-9 }
}

impl Question<'_> {
    fn rows(&self, entry: &Entry) -> u32 {
        self.slots.find(entry.key).map_or(1, |queued| queued.request.rows)
    }

    fn max(&self) -> usize {
        self.options.max_batch.max(1)
    }

    /// Requests from the front of `open` that fill at most `rows`.
    fn filling(&self, from: usize, rows: usize) -> usize {
        if self.lane.rows == self.lane.requests as u64 {
            return rows.min(self.order.open.len() - from);
        }
        let mut left = rows as u64;
        let fits = |entry: &&Entry| {
            let rows = u64::from(self.rows(entry));
            let fits = rows <= left;
            left = left.saturating_sub(rows);
            fits
        };
        self.order.open[from..].iter().take_while(fits).count()
    }

    /// The decision.
    pub fn answer(&mut self) -> Decision {
        let open = &self.order.open;
        let passed = open.iter().take_while(|e| e.deadline_ns < self.now_ns).count();
        if passed > 0 && (passed == open.len() || self.options.policy != Policy::Adaptive) {
            return Decision::Take { give_up: passed, run: 0 };
        }
        let fixed: u32 = self.order.fixed.iter().map(|e| self.rows(e)).sum();
        let room = self.max().saturating_sub(fixed as usize);
        if room == 0 {
            return Decision::Take { give_up: 0, run: 0 };
        }
        let most = match self.options.policy {
            Policy::None => 1,
            Policy::Fixed { size } => size.clamp(1, self.max()),
            _ => room,
        };
        if let Some(until) = self.waits(fixed) {
            return Decision::Wait(until);
        }
        if self.options.policy == Policy::Adaptive && !self.relaxed() {
            return self.planned(fixed, room);
        }
        Decision::Take { give_up: 0, run: self.filling(0, most).max(usize::from(fixed == 0)) }
    }

    /// Until when the policy would wait for more.
    fn waits(&self, fixed: u32) -> Option<u64> {
        let rows = self.lane.rows as usize;
        let (enough, wait) = match self.options.policy {
            Policy::None => return None,
            Policy::Fixed { size } => (size.min(self.max()), self.options.max_wait),
            Policy::Window { wait } => (self.max(), wait),
            Policy::Greedy | Policy::Adaptive => (self.options.min_batch.min(self.max()), self.options.max_wait),
        };
        if rows >= enough || self.draining || fixed > 0 {
            return None;
        }
        let head = self.order.open.first()?;
        let admitted_ns = self.slots.find(head.key)?.admitted_ns;
        let took_ns = (self.latency.expected_s(rows as u32 + 1, self.lane.length) * margin(&self.latency.noise) * 1e9) as u64;
        let until = (admitted_ns + wait.as_nanos() as u64).min(head.deadline_ns.saturating_sub(took_ns));
        (until > self.now_ns).then_some(until)
    }

    /// Whether all that waits would be in time twice over: then nothing is to be weighed.
    fn relaxed(&self) -> bool {
        let (max, rows) = (self.max() as u32, self.lane.rows);
        let heads = self.order.open.first().into_iter().chain(self.order.fixed.first());
        let Some(due) = heads.map(|e| e.deadline_ns).min() else { return true };
        let first = (rows as u32).min(max);
        let batches = rows.div_ceil(u64::from(max)) as f64;
        2.0 * batches * self.latency.expected_s(first, self.lane.length) <= left_s(due, self.now_ns)
    }

    /// The choice of the search, in requests.
    fn planned(&mut self, fixed: u32, room: usize) -> Decision {
        let max = self.max() as u32;
        self.lane.curve.update(self.latency, max, self.lane.length, self.lane.target_s);
        self.due_s.clear();
        for entry in &self.order.open {
            let left = left_s(entry.deadline_ns, self.now_ns);
            self.due_s.extend((0..self.rows(entry)).map(|_| left));
        }
        let now_s = self.now_ns as f64 * 1e-9;
        let (short_rate, long_rate) = (self.lane.arrivals.short(now_s), self.lane.arrivals.long(now_s));
        let fixed_due_s = self.order.fixed.first().map_or(0.0, |e| left_s(e.deadline_ns, self.now_ns));
        let view = View { due_s: self.due_s, fixed, fixed_due_s, target_s: self.lane.target_s, short_rate, long_rate };
        let choice = Plan { curve: &self.lane.curve, noise: &self.latency.noise, view }.choose();
        self.in_requests(choice, fixed, room)
    }

    /// Whole requests: one of which a part was to run is run, one of which a part was to be given up is given up.
    fn in_requests(&self, choice: Choice, fixed: u32, room: usize) -> Decision {
        let open = &self.order.open;
        let (mut give_up, mut gone) = (0, 0);
        while gone < choice.give_up && give_up < open.len() {
            gone += self.rows(&open[give_up]) as usize;
            give_up += 1;
        }
        let run = self.filling(give_up, choice.run.min(room));
        if run > 0 || fixed > 0 {
            return Decision::Take { give_up, run };
        }
        if choice.run > 0 {
            return Decision::Take { give_up, run: usize::from(give_up < open.len()) };
        }
        // Nothing is likely to be in time. The last still has the best chance; a device with nothing else to do takes it.
        let last = open.len() - 1;
        let hope =
            left_s(open[last].deadline_ns, self.now_ns) / self.latency.expected_s(self.rows(&open[last]), self.lane.length);
        let tries = self.lane.requests == open.len() && hope > 0.0 && (self.rested || self.latency.noise.late(hope) < 0.9);
        Decision::Take { give_up: if tries { last } else { open.len() }, run: usize::from(tries) }
    }
}
