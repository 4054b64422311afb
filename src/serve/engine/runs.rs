//! Runs batches and answers their requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::batch::{Ran, Trace};
use super::join::{Buffers, Extent, check_rows, join};
use super::request::{Queued, alike, wake};
use crate::base::lock;
use crate::error::{Error, Result};

/// What is kept from batch to batch.
#[derive(Default)]
pub(super) struct Runs {
    buffers: Buffers,
}

impl Runs {
    /// Answers each request; for how long models ran.
    pub fn answer(&mut self, mut left: Vec<Queued>) -> Duration {
        let batched = Instant::now();
        let mut took = Duration::ZERO;
        while let Some(first) = left.first() {
            let model = first.model.clone();
            let joins = !model.is_unjoinable.load(Ordering::Relaxed);
            let other = left.iter().skip(1).any(|p| !joins || !alike(&model.axes, &left[0].checked, &p.checked));
            let group = if other {
                let first = left.remove(0);
                let is_alike = |p: &mut Queued| joins && alike(&model.axes, &first.checked, &p.checked);
                let mut alike: Vec<Queued> = left.extract_if(.., is_alike).collect();
                alike.insert(0, first);
                alike
            } else {
                std::mem::take(&mut left)
            };
            took += self.settle(group, batched);
        }
        took
    }

    /// Runs a group and answers it; where it fails, its halves, so that only those requests fail that fail alone. A device's failure says
    /// nothing of them: then the group runs once more as a whole, or fails as a whole.
    fn settle(&mut self, mut group: Vec<Queued>, batched: Instant) -> Duration {
        let began = Instant::now();
        let mut ran = self.run(&group, batched);
        if is_of_device(&ran) {
            lock(&group[0].model.recorder).counts.retried += 1;
            ran = self.run(&group, batched);
        }
        let (took, is_of_device) = (began.elapsed(), is_of_device(&ran));
        match ran {
            Ok(ran) => answer(group, ran),
            Err(error) => {
                let halves = group.len() > 1 && !is_of_device;
                count(&group, &error, halves);
                if halves {
                    let second = group.split_off(group.len() / 2);
                    return took + self.settle(group, batched) + self.settle(second, batched);
                }
                group.into_iter().for_each(|pending| pending.fail(error.clone()));
            }
        }
        took
    }

    fn run(&mut self, group: &[Queued], batched: Instant) -> Result<Ran> {
        let model = &group[0].model;
        let extent = Extent::of(&model.axes, group);
        let buffers = &mut self.buffers;
        let run = || {
            let inputs = join(&model.axes, group, &extent, buffers)?;
            let started = Instant::now();
            Ok((model.runner.run(&inputs)?, started, Instant::now()))
        };
        // A half-written buffer is written anew by the next batch; a runner that panics looks after itself.
        let ran = catch_unwind(AssertUnwindSafe(run));
        let (outputs, started, finished) = ran.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Error::Panicked { why: text.unwrap_or_else(|| "without a message".into()) })
        })?;
        if model.axes.is_batched && !extent.is_request(group) {
            check_rows(&model.axes, &extent, &outputs).inspect_err(|_| {
                model.is_unjoinable.store(true, Ordering::Relaxed);
                lock(&model.recorder).counts.is_unjoinable = true;
            })?;
        }
        let (requests, replied) = (group.len(), Instant::now());
        Ok(Ran { outputs, extent, requests, batched, started, finished, replied })
    }
}

/// Whether it was the device that failed.
fn is_of_device<T>(ran: &Result<T>) -> bool {
    matches!(ran, Err(Error::Device { .. }))
}

/// Counts a run that failed, and is run in halves or not.
fn count(group: &[Queued], error: &Error, halves: bool) {
    let counts = &mut lock(&group[0].model.recorder).counts;
    counts.panics += u64::from(matches!(error, Error::Panicked { .. }));
    if halves {
        counts.bisected += 1;
    } else {
        counts.failed += group.len() as u64;
    }
}

/// Counts a batch, then gives every request its share: who has a reply finds it in the figures.
fn answer(group: Vec<Queued>, ran: Ran) {
    let Ran { requests, batched, started, finished, replied, extent, .. } = ran;
    let trace = |p: &Queued| Trace {
        submitted: p.submitted,
        batched,
        started,
        finished,
        replied,
        requests,
        rows: extent.rows,
        filled_rows: extent.filled,
    };
    let used = group.iter().map(|p| p.checked.rows * p.checked.length).sum();
    let late = group.iter().filter(|p| p.due.is_some_and(|due| replied > due)).count();
    lock(&group[0].model.recorder).batch(group.iter().map(trace), late, used, extent.filled * extent.length);
    let (ran, mut first_row) = (Arc::new(ran), 0);
    let mut waiting = Waiting(Vec::new());
    for pending in group {
        let rows = pending.checked.rows;
        waiting.0.extend(pending.answer(ran.clone(), first_row));
        first_row += rows;
    }
}

/// Who waits for answers that are given. They are woken when all are: who is woken before takes the next ones as they come, and sleeps
/// and is woken again.
struct Waiting(Vec<Waker>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.drain(..).for_each(wake);
    }
}
