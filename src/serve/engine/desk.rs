//! Who runs batches: the engine's thread, or a caller that would otherwise sleep until its answer is there. Whoever takes the desk asks the
//! scheduler what to run, runs it and answers, until it puts the desk back.
//!
//! Waking a thread costs some 20 us of processor time, and what one core wrote another fetches line by line. So where runs are short, callers
//! serve themselves, and the requests of others with their own, as flat combining does (Hendler et al., SPAA 2010), and the engine's thread only
//! looks from time to time that nothing is left lying. Where offers come faster than it could be woken for each, it looks from time to time too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::door::Guard;
use super::request::Queued;
use super::runs::Runs;
use super::shared::{Shared, State};
use crate::error::Error;
use crate::serve::schedule::{Batch, Key, Rejection, Step};

/// Callers run batches as long as the last one took less: longer ones are worth waking a thread for.
const SHORT: Duration = Duration::from_micros(100);

/// The engine's thread looks this often where it is not woken for each offer.
const NAP: Duration = Duration::from_micros(100);

/// Requests closer to each other than waking a thread takes.
const DENSE: Duration = Duration::from_micros(20);

/// What is kept from batch to batch.
#[derive(Default)]
pub(super) struct Desk {
    batch: Batch,
    runs: Runs,
}

/// What there is to do when a desk is put back.
enum Rest {
    /// Nothing.
    Idle,
    /// Something, after so long.
    Later(Duration),
    /// Whatever waits, or the engine has stopped: nobody was asked.
    Any,
}

/// What the engine's thread saw when it looked last.
#[derive(Default)]
struct Seen {
    at: Duration,
    served: u64,
    taken: u64,
    is_dense: bool,
}

impl Seen {
    /// Whether callers have served themselves since.
    fn callers_serve(&mut self, state: &State) -> bool {
        std::mem::replace(&mut self.served, state.served) != state.served
    }

    /// Notes whether requests have come too fast since to be woken for each.
    fn look(&mut self, state: &State, now: Duration) {
        let time = now - std::mem::replace(&mut self.at, now);
        let requests = state.taken - std::mem::replace(&mut self.taken, state.taken);
        self.is_dense = state.took < SHORT && time.as_nanos() <= DENSE.as_nanos() * u128::from(requests);
    }
}

/// The engine's thread, until the engine stops.
pub(super) fn work(shared: &Shared) {
    let (mut state, mut seen) = (shared.state.lock(), Seen::default());
    while !state.is_stopped {
        let is_wanted = std::mem::take(&mut state.is_wanted);
        if seen.callers_serve(&state) && !is_wanted {
            state = shared.state.nap(state, NAP);
            continue;
        }
        // Who has the desk wakes this thread when something is left.
        let Some(desk) = state.desk.take() else {
            state = shared.state.sleep(state, None);
            continue;
        };
        // Where requests are dense, those that come meanwhile are left to gather.
        let (is_dense, all) = (seen.is_dense, state.taken + state.scheduler.depth() as u64);
        let rest;
        (state, rest) = serve(shared, state, desk, |state| is_dense && state.taken >= all);
        let now = state.now(shared);
        seen.look(&state, now);
        state = match rest {
            Rest::Later(time) => shared.state.sleep(state, Some(time)),
            _ if seen.is_dense => shared.state.nap(state, NAP),
            Rest::Any => state,
            Rest::Idle => shared.state.sleep(state, None),
        };
    }
}

/// A caller runs batches until `is_done`, if they are short, nobody else does, and there are any.
pub(super) fn help(shared: &Shared, is_done: impl Fn() -> bool) {
    let mut state = shared.state.lock();
    if state.is_stopped || state.took >= SHORT {
        return;
    }
    let Some(desk) = state.desk.take() else { return };
    state.served += 1;
    let run = || {
        let (mut state, rest) = serve(shared, state, desk, |_| is_done());
        match rest {
            Rest::Idle => {}
            Rest::Any => shared.state.offered(state),
            Rest::Later(_) => {
                state.is_wanted = true;
                shared.state.wake(state);
            }
        }
    };
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        shared.stop(&Error::Panicked { why: "the engine panicked on a caller's thread".into() });
    }
}

/// Runs batches until it is enough, or there is nothing to run now.
fn serve<'a>(
    shared: &'a Shared,
    mut state: Guard<'a, State>,
    mut desk: Box<Desk>,
    is_enough: impl Fn(&State) -> bool,
) -> (Guard<'a, State>, Rest) {
    state.worker = Some(thread::current().id());
    let rest = loop {
        if state.is_stopped || is_enough(&state) {
            break if state.is_stopped || state.scheduler.depth() > 0 { Rest::Any } else { Rest::Idle };
        }
        let now = state.now(shared);
        let step = state.scheduler.next(now, &mut desk.batch);
        let expelled = expelled(&mut state, &desk.batch.expelled);
        match step {
            Step::Run => {
                let taken: Vec<Queued> = desk.batch.keys.iter().filter_map(|&key| state.take(key)).collect();
                state.running = taken.len();
                state.taken += taken.len() as u64;
                drop(state);
                reject(expelled);
                let took = desk.runs.answer(taken);
                state = shared.state.lock();
                (state.running, state.took) = (0, took);
                let now = state.now(shared);
                state.scheduler.finished(&desk.batch, took, now);
            }
            // Something may be offered while the lock is not held: the scheduler is asked again before anybody sleeps.
            _ if !expelled.is_empty() => {
                drop(state);
                reject(expelled);
                state = shared.state.lock();
            }
            Step::Wait(until) => break Rest::Later(until.saturating_sub(now)),
            Step::Idle => break Rest::Idle,
        }
    };
    (state.desk, state.worker) = (Some(desk), None);
    shared.state.is_idle(&mut state);
    (state, rest)
}

fn expelled(state: &mut State, keys: &[(Key, Rejection)]) -> Vec<(Queued, Rejection)> {
    keys.iter().filter_map(|&(key, why)| Some((state.take(key)?, why))).collect()
}

fn reject(expelled: Vec<(Queued, Rejection)>) {
    expelled.into_iter().for_each(|(pending, why)| pending.fail(why.into()));
}
