//! What became of a model's requests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::lock;
use crate::serve::engine::Trace;
use crate::serve::protocol::messages::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};

/// Counts and times of a model's version.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_ms: u64,
    items: u64,
    success: StatisticDuration,
    fail: StatisticDuration,
    hit: StatisticDuration,
    miss: StatisticDuration,
    queue: StatisticDuration,
    compute: StatisticDuration,
    /// Runs, of which each request of a batch is a part.
    runs: f64,
    /// The same by rows of the batch, with the nanoseconds that they took.
    batches: BTreeMap<usize, (f64, f64)>,
}

fn add(to: &mut StatisticDuration, time: Duration) {
    to.count += 1;
    to.ns += time.as_nanos() as u64;
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Counts {
    /// A request of so many items was answered.
    pub fn succeeded(&self, items: u64, trace: &Trace) {
        let mut state = lock(&self.0);
        state.last_ms = now_ms();
        state.items += items;
        add(&mut state.success, trace.latency());
        add(&mut state.queue, trace.started - trace.submitted);
        let compute = trace.finished - trace.started;
        add(&mut state.compute, compute);
        let part = 1.0 / trace.requests.max(1) as f64;
        state.runs += part;
        let (runs, ns) = state.batches.entry(trace.rows).or_default();
        *runs += part;
        *ns += part * compute.as_nanos() as f64;
    }

    /// A request of so many items was answered without a run of its own.
    pub fn hit(&self, items: u64, whole: Duration) {
        let mut state = lock(&self.0);
        state.last_ms = now_ms();
        state.items += items;
        add(&mut state.success, whole);
        add(&mut state.hit, whole);
    }

    /// The cache had no answer for a request, which took so long to find out.
    pub fn missed(&self, looked: Duration) {
        add(&mut lock(&self.0).miss, looked);
    }

    /// A request failed.
    pub fn failed(&self, whole: Duration) {
        add(&mut lock(&self.0).fail, whole);
    }

    /// As the protocol says it.
    pub fn message(&self, name: &str, version: &str) -> ModelStatistics {
        let state = lock(&self.0);
        let (none, some) = (Some(StatisticDuration::default()), Some);
        ModelStatistics {
            name: name.into(),
            version: version.into(),
            last_inference: state.last_ms,
            inference_count: state.items,
            execution_count: state.runs.round() as u64,
            inference_stats: Some(InferStatistics {
                success: some(state.success),
                fail: some(state.fail),
                queue: some(state.queue),
                compute_input: none,
                compute_infer: some(state.compute),
                compute_output: none,
                cache_hit: some(state.hit),
                cache_miss: some(state.miss),
            }),
            batch_stats: state.batches.iter().map(batch).collect(),
        }
    }
}

fn batch((&rows, &(runs, ns)): (&usize, &(f64, f64))) -> InferBatchStatistics {
    let compute_infer = Some(StatisticDuration { count: runs.round() as u64, ns: ns as u64 });
    InferBatchStatistics { batch_size: rows as u64, compute_infer }
}
