//! Steps down to the next way of running when one fails, and remembers for a while.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::lock;
use crate::error::Error;
use crate::memory::{Rung, RungCount};

/// How long a failed rung is left alone.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// Which rungs failed lately, and every step down with its reason.
#[derive(Default)]
pub(crate) struct Ladder {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each rung failed last, and why.
    failed: Vec<Option<(Instant, String)>>,
    steps: Vec<RungCount>,
    notes: Vec<String>,
}

impl Ladder {
    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The rungs to try, in order: those that did not fail lately first; all of them when all failed.
    pub fn order(&self, rungs: usize) -> Vec<usize> {
        let mut state = self.locked();
        state.failed.resize(rungs, None);
        let cold = |i: &usize| state.failed[*i].as_ref().is_none_or(|(at, _)| at.elapsed() >= COOL_DOWN);
        let ready: Vec<usize> = (0..rungs).filter(cold).collect();
        if ready.is_empty() { (0..rungs).collect() } else { ready }
    }

    /// Whether another rung may do better than the one that gave this error.
    pub fn may_help(error: &Error) -> bool {
        error.is_memory() || matches!(error, Error::Device { .. } | Error::NonFinite { .. })
    }

    /// Notes that `rung` failed.
    pub fn failed(&self, rung: usize, name: &str, error: &Error) {
        let mut state = self.locked();
        if let Some(at) = state.failed.get_mut(rung) {
            *at = Some((Instant::now(), error.to_string()));
        }
        drop(state);
        self.note(format!("stepped down from {name}: {error}"));
    }

    /// Why each rung failed the last time that it did.
    pub fn reasons(&self) -> Vec<Option<String>> {
        self.locked().failed.iter().map(|failed| failed.as_ref().map(|(_, why)| why.clone())).collect()
    }

    /// Counts a step for want of memory.
    pub fn count(&self, rung: Rung, helped: bool, time: Duration) {
        let mut state = self.locked();
        let at = state.steps.iter().position(|step| step.rung == rung).unwrap_or_else(|| {
            state.steps.push(RungCount { rung, tried: 0, helped: 0, time_us: 0 });
            state.steps.len() - 1
        });
        let step = &mut state.steps[at];
        step.tried += 1;
        step.helped += u64::from(helped);
        step.time_us += time.as_micros() as u64;
    }

    /// Those counts.
    pub fn steps(&self) -> Vec<RungCount> {
        self.locked().steps.clone()
    }

    /// Notes something, once.
    pub fn note(&self, note: String) {
        let mut state = self.locked();
        if !state.notes.contains(&note) {
            state.notes.push(note);
        }
    }

    /// Every note so far.
    pub fn notes(&self) -> Vec<String> {
        self.locked().notes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_rung_is_skipped_and_the_reason_kept_once() {
        let ladder = Ladder::default();
        assert_eq!(ladder.order(2), [0, 1]);
        let error = Error::NonFinite { output: "y".into() };
        ladder.failed(0, "cpu f16", &error);
        ladder.failed(0, "cpu f16", &error);
        assert_eq!(ladder.order(2), [1]);
        assert_eq!(ladder.reasons(), [Some("output y is not finite".to_string()), None]);
        assert_eq!(ladder.notes(), ["stepped down from cpu f16: output y is not finite"]);
        ladder.failed(1, "cpu f32", &error);
        assert_eq!(ladder.order(2), [0, 1], "when all failed, all are tried again");
    }

    #[test]
    fn wrong_input_is_the_callers_and_no_reason_to_step_down() {
        assert!(!Ladder::may_help(&Error::BadInput("x".into())));
        assert!(Ladder::may_help(&Error::OutOfMemory { device: "cuda".into(), needed_bytes: 2, available_bytes: 1 }));
    }
}
