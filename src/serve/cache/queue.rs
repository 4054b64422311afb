//! A bounded queue to one thread, which the thread may shut and open.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::base::lock;

/// A time from now on; one too far to be told is a century away.
pub(super) fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now + time.min(CENTURY)
}

/// Longer than anything lasts.
pub(super) const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

struct State<T> {
    waiting: VecDeque<(T, usize)>,
    weight: usize,
    open: bool,
    /// Nobody will push any more.
    ended: bool,
    /// The thread works on what it has taken.
    busy: bool,
}

/// Items with weights, up to a limit of their sum.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limit: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(limit: usize, open: bool) -> Self {
        let state = State { waiting: VecDeque::new(), weight: 0, open, ended: false, busy: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), limit }
    }

    /// Adds an item; gives it back when the queue is shut or full.
    pub(super) fn push(&self, item: T, weight: usize) -> Result<(), T> {
        let mut state = lock(&self.state);
        if !state.open || state.ended || state.weight + weight > self.limit {
            return Err(item);
        }
        state.weight += weight;
        state.waiting.push_back((item, weight));
        self.changed.notify_all();
        Ok(())
    }

    /// Up to `most` items, once there are some; `None` when the queue has ended and is empty.
    pub(super) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut state = lock(&self.state);
        state.busy = false;
        self.changed.notify_all();
        while state.waiting.is_empty() {
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.busy = true;
        let taken: Vec<_> = (0..most).map_while(|_| state.waiting.pop_front()).collect();
        state.weight -= taken.iter().map(|(_, weight)| weight).sum::<usize>();
        Some(taken.into_iter().map(|(item, _)| item).collect())
    }

    /// Lets items in.
    pub(super) fn open(&self) {
        lock(&self.state).open = true;
    }

    /// Lets none in any more, and gives back those that wait.
    pub(super) fn shut(&self) -> Vec<T> {
        let mut state = lock(&self.state);
        (state.open, state.weight) = (false, 0);
        state.waiting.drain(..).map(|(item, _)| item).collect()
    }

    /// Whether items are let in.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// Nobody will push any more.
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// Sleeps for `time` or until the end. False at the end.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let until = after(time);
        self.wait_until(until, |state| state.ended);
        !lock(&self.state).ended
    }

    /// Waits until everything is done or `until`. Whether it is.
    pub(super) fn idle(&self, until: Instant) -> bool {
        self.wait_until(until, |state| state.waiting.is_empty() && !state.busy)
    }

    fn wait_until(&self, until: Instant, done: impl Fn(&State<T>) -> bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if done(&state) || left.is_zero() {
                return done(&state);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|p| p.into_inner()).0;
        }
    }

    /// Items that wait, and their weight.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.waiting.len(), state.weight)
    }
}
