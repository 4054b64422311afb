//! What an engine did, in figures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::batch::Trace;
use super::quantiles::{Histogram, Quantiles};
use crate::serve::schedule;

/// Times of requests by stage, each request counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Stages {
    /// From admission until taken into a batch.
    pub queued: Quantiles,
    /// Until the model began: batches are put together.
    pub prepared: Quantiles,
    /// While the model ran.
    pub ran: Quantiles,
    /// From then to the reply.
    pub replied: Quantiles,
    /// From admission to the reply.
    pub total: Quantiles,
}

/// What was done with one model.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ModelStatistics {
    /// Its name.
    pub name: String,
    /// Requests with an answer.
    pub answered: u64,
    /// Answers given after their deadline.
    pub late: u64,
    /// Share of answers given by their deadline; `None` without answers.
    pub on_time_share: Option<f64>,
    /// Requests whose own run failed, or whose device failed twice.
    pub failed: u64,
    /// Batches that failed or panicked as a whole; their requests were then run in halves.
    pub bisected: u64,
    /// Batches that ran once more because the device failed.
    pub retried: u64,
    /// Runs that panicked.
    pub panics: u64,
    /// Batches that ran, by number of requests.
    pub batch_sizes: BTreeMap<usize, u64>,
    /// Rows of requests.
    pub rows: u64,
    /// Rows that batches were filled up with.
    pub filler_rows: u64,
    /// Share of what ran, rows by length, that was filler rows or padding.
    pub padding_share: f64,
    /// Requests run one by one although they could be joined, because the model's outputs do not have the batch's rows.
    pub is_unjoinable: bool,
    /// Latency.
    pub stages: Stages,
    /// The same of the last half minute to minute.
    pub recent: Stages,
}

/// What an engine did since it began.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Statistics {
    /// Requests that wait.
    pub queued: usize,
    /// Requests of the batch that runs.
    pub running: usize,
    /// Admissions, and rejections by reason.
    pub requests: schedule::Statistics,
    /// For each model.
    pub models: Vec<ModelStatistics>,
}

/// Recent figures are of this time and the one before.
const WINDOW: Duration = Duration::from_secs(30);

/// Histograms of the stages, in their order.
type Times = [Histogram; 5];

fn add(to: &mut Times, more: &Times) {
    to.iter_mut().zip(more).for_each(|(to, more)| to.add(more));
}

fn stages(times: &Times) -> Stages {
    let [queued, prepared, ran, replied, total] = times.each_ref().map(Histogram::quantiles);
    Stages { queued, prepared, ran, replied, total }
}

/// Counts of one model.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub counts: ModelStatistics,
    /// Times of this window, of the one before, and of all before that.
    times: Times,
    before: Times,
    past: Times,
    /// When this window ends.
    until: Option<Instant>,
    /// Rows times length: of requests, and as they ran.
    used: u64,
    ran: u64,
}

impl Recorder {
    /// Counts an answered batch by its requests' traces, of which `late` came after their deadline; `used` is the sum of their rows times
    /// length, `ran` that of the batch.
    pub fn batch(&mut self, traces: impl Iterator<Item = Trace>, late: usize, used: usize, ran: usize) {
        let mut last = None;
        for trace in traces {
            if last.is_none() {
                self.turn(trace.replied);
            }
            let times = [
                trace.batched - trace.submitted,
                trace.started - trace.batched,
                trace.finished - trace.started,
                trace.replied - trace.finished,
                trace.latency(),
            ];
            self.times.iter_mut().zip(times).for_each(|(stage, time)| stage.record(time, 1));
            last = Some(trace);
        }
        let Some(Trace { requests, rows, filled_rows, .. }) = last else { return };
        self.counts.answered += requests as u64;
        self.counts.late += late as u64;
        self.counts.rows += rows as u64;
        self.counts.filler_rows += (filled_rows - rows) as u64;
        *self.counts.batch_sizes.entry(requests).or_default() += 1;
        (self.used, self.ran) = (self.used + used as u64, self.ran + ran as u64);
    }

    /// Begins a new window if it is time; what is older than the last one is no longer recent.
    fn turn(&mut self, now: Instant) {
        let until = *self.until.get_or_insert(now + WINDOW);
        if now < until {
            return;
        }
        let windows = if now < until + WINDOW { 1 } else { 2 };
        for _ in 0..windows {
            add(&mut self.past, &self.before);
            self.before = std::mem::take(&mut self.times);
        }
        self.until = Some(now + WINDOW);
    }

    /// The figures so far.
    pub fn statistics(&mut self, now: Instant) -> ModelStatistics {
        self.turn(now);
        let share = |part: u64, whole: u64| (whole > 0).then(|| 1.0 - part as f64 / whole as f64);
        let mut times = self.times.clone();
        add(&mut times, &self.before);
        let recent = stages(&times);
        add(&mut times, &self.past);
        let (on_time_share, padding_share) = (share(self.counts.late, self.counts.answered), share(self.used, self.ran));
        let padding_share = padding_share.unwrap_or(0.0);
        ModelStatistics { on_time_share, padding_share, stages: stages(&times), recent, ..self.counts.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_figures_forget_and_the_others_do_not() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let mut answer = |s: u64, latency_ms: u64| {
            let (submitted, replied) = (at(s) - Duration::from_millis(latency_ms), at(s));
            let (batched, started, finished) = (submitted, submitted, replied);
            let trace = Trace { submitted, batched, started, finished, replied, requests: 1, rows: 1, filled_rows: 1 };
            recorder.batch([trace].into_iter(), usize::from(latency_ms > 100), 1, 1);
        };
        answer(1000, 500);
        answer(1020, 10);
        answer(1040, 10);
        let found = recorder.statistics(at(1050));
        assert_eq!((found.recent.total.count, found.stages.total.count), (3, 3));
        let found = recorder.statistics(at(1075));
        assert_eq!((found.recent.total.count, found.recent.total.max_us, found.stages.total.max_us), (1, 1e4, 5e5));
        assert_eq!((found.late, found.on_time_share), (1, Some(1.0 - 1.0 / 3.0)));
        let found = recorder.statistics(at(5000));
        assert_eq!((found.recent.total.count, found.stages.total.count), (0, 3));
    }
}
