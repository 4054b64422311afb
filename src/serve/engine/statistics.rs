//! What an engine did, in figures.

use std::collections::BTreeMap;

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
    /// Requests whose own run failed.
    pub failed: u64,
    /// Batches that failed or panicked as a whole; their requests were then run in halves.
    pub bisected: u64,
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

/// Counts of one model.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub counts: ModelStatistics,
    stages: [Histogram; 5],
    /// Rows times length: of requests, and as they ran.
    used: u64,
    ran: u64,
}

impl Recorder {
    /// Counts an answered batch by its requests' traces; `used` is the sum of their rows times length, `ran` that of the batch.
    pub fn batch(&mut self, traces: impl Iterator<Item = Trace>, used: usize, ran: usize) {
        let mut last = None;
        for trace in traces {
            let times = [
                trace.batched - trace.submitted,
                trace.started - trace.batched,
                trace.finished - trace.started,
                trace.replied - trace.finished,
                trace.latency(),
            ];
            self.stages.iter_mut().zip(times).for_each(|(stage, time)| stage.record(time, 1));
            last = Some(trace);
        }
        let Some(Trace { requests, rows, filled_rows, .. }) = last else { return };
        self.counts.answered += requests as u64;
        self.counts.rows += rows as u64;
        self.counts.filler_rows += (filled_rows - rows) as u64;
        *self.counts.batch_sizes.entry(requests).or_default() += 1;
        (self.used, self.ran) = (self.used + used as u64, self.ran + ran as u64);
    }

    /// The figures so far.
    pub fn statistics(&self) -> ModelStatistics {
        let [queued, prepared, ran, replied, total] = self.stages.each_ref().map(Histogram::quantiles);
        let padding_share = 1.0 - self.used as f64 / self.ran.max(1) as f64;
        let padding_share = if self.ran == 0 { 0.0 } else { padding_share };
        ModelStatistics { padding_share, stages: Stages { queued, prepared, ran, replied, total }, ..self.counts.clone() }
    }
}
