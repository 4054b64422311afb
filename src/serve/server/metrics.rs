//! A server's status in Prometheus' text format (version 0.0.4).

use std::collections::BTreeMap;

use super::status::{Status, Version};
use crate::base::exposition::{Distribution, family, histogram, labels, summary};
use crate::hardware::DeviceKind;
use crate::memory::{Stats, prometheus};
use crate::serve::cache;
use crate::serve::engine::{ModelStatistics as Engine, Quantiles};
use crate::serve::protocol::messages::{InferStatistics, ModelStatistics, StatisticDuration};
use crate::session::Report;

/// A stage of requests: its name, and its figures.
type Stage = (&'static str, fn(&InferStatistics) -> Option<StatisticDuration>);

const STAGES: [Stage; 6] = [
    ("success", |s| s.success),
    ("fail", |s| s.fail),
    ("queue", |s| s.queue),
    ("compute", |s| s.compute_infer),
    ("cache_hit", |s| s.cache_hit),
    ("cache_miss", |s| s.cache_miss),
];

/// A name, what it is, and its value of something.
type Metric<S, V> = (&'static str, &'static str, fn(&S) -> V);

/// All figures of a status.
pub(super) fn text(status: &Status) -> String {
    let mut text = server(status);
    counts(&mut text, &status.counted);
    engine(&mut text, status);
    sessions(&mut text, status);
    if let Some(stats) = &status.figures.cache {
        text += &cache::prometheus::text(&[("results", stats.clone())]);
    }
    text += &status.figures.limits.prometheus();
    let fires = status.alerts.iter().map(|a| (labels(&[("rule", &a.rule.metric), ("subject", &a.subject)]), 1));
    family(&mut text, "halfbyte_alert", "gauge", "Alerts that fire.", fires);
    text + &prometheus::text(&[], &pools(status), "") + &prometheus::host(&status.host)
}

fn server(status: &Status) -> String {
    let mut text = String::new();
    for (name, help, value) in [
        ("halfbyte_serve_ready", "Whether requests are taken.", usize::from(status.is_ready)),
        ("halfbyte_serve_requests_inside", "Requests for inference being served.", status.inside),
        ("halfbyte_serve_queued", "Requests that wait for a batch.", status.figures.engine.queued),
        ("halfbyte_serve_running", "Requests of the batch that runs.", status.figures.engine.running),
    ] {
        family(&mut text, name, "gauge", help, [(String::new(), value)].into_iter());
    }
    let outcomes = status.figures.requests.iter().map(|(outcome, n)| (labels(&[("outcome", outcome)]), n));
    let help = "Requests for inference by what became of them: answered, why they failed, or gone with their caller.";
    family(&mut text, "halfbyte_serve_outcomes_total", "counter", help, outcomes);
    let q = status.figures.engine.requests;
    let rejected = [
        ("queue_full", q.queue_full),
        ("too_late", q.too_late),
        ("draining", q.draining),
        ("too_large", q.too_large),
        ("empty", q.empty),
    ];
    let rejected = rejected.into_iter().map(|(reason, n)| (labels(&[("reason", reason)]), n));
    family(
        &mut text,
        "halfbyte_serve_rejected_total",
        "counter",
        "Requests that the scheduler did not run, by reason.",
        rejected,
    );
    let help = "Requests whose callers went away while they waited.";
    family(&mut text, "halfbyte_serve_cancelled_total", "counter", help, [(String::new(), q.cancelled)].into_iter());
    text
}

/// What the protocol counts.
fn counts(text: &mut String, models: &[ModelStatistics]) {
    let of = |value: fn(&ModelStatistics) -> u64| models.iter().map(move |m| (of_model(&m.name, &m.version, &[]), value(m)));
    family(text, "halfbyte_serve_items_total", "counter", "Items of requests that were answered.", of(|m| m.inference_count));
    family(text, "halfbyte_serve_runs_total", "counter", "Runs of the model.", of(|m| m.execution_count));
    let stages = |value: fn(StatisticDuration) -> f64| {
        models.iter().flat_map(move |m| {
            let figures = m.inference_stats.as_ref();
            let one = move |(name, of): &Stage| Some((of_model(&m.name, &m.version, &[("stage", name)]), value(of(figures?)?)));
            STAGES.iter().filter_map(one)
        })
    };
    let count = "Requests by stage: success and fail are whole requests, the others parts of them.";
    family(text, "halfbyte_serve_requests_total", "counter", count, stages(|d| d.count as f64));
    family(text, "halfbyte_serve_request_seconds_total", "counter", "Time of those requests.", stages(|d| d.ns as f64 / 1e9));
}

/// What the engine did with each model.
fn engine(text: &mut String, status: &Status) {
    let models = || status.models.iter().filter_map(|v| Some((v, v.engine.as_ref()?)));
    let stages = models().flat_map(|(v, e)| {
        let s = e.stages;
        let all = [("queued", s.queued), ("prepared", s.prepared), ("ran", s.ran), ("replied", s.replied), ("total", s.total)];
        all.map(|(stage, times)| (of_version(v, &[("stage", stage)]), seconds(&times)))
    });
    summary(text, "halfbyte_serve_stage_seconds", "Latency in the engine by stage.", stages);
    let sizes = models().map(|(v, e)| (of_version(v, &[]), sizes(e)));
    histogram(text, "halfbyte_serve_batch_requests", "Requests of a batch.", sizes);
    let counters: [Metric<Engine, u64>; 7] = [
        ("halfbyte_serve_answered_total", "Requests that the engine answered.", |e| e.answered),
        ("halfbyte_serve_late_total", "Answers given after their deadline.", |e| e.late),
        ("halfbyte_serve_failed_total", "Requests whose own run failed.", |e| e.failed),
        ("halfbyte_serve_bisected_total", "Batches that failed as a whole and were run in halves.", |e| e.bisected),
        ("halfbyte_serve_panics_total", "Runs that panicked.", |e| e.panics),
        ("halfbyte_serve_rows_total", "Rows of requests.", |e| e.rows),
        ("halfbyte_serve_filler_rows_total", "Rows that batches were filled up with.", |e| e.filler_rows),
    ];
    for (name, help, value) in counters {
        family(text, name, "counter", help, models().map(|(v, e)| (of_version(v, &[]), value(e))));
    }
    let padding = models().map(|(v, e)| (of_version(v, &[]), e.padding_share));
    family(text, "halfbyte_serve_padding_share", "gauge", "Share of what ran that was filler or padding.", padding);
    let on_time = models().filter_map(|(v, e)| Some((of_version(v, &[]), e.on_time_share?)));
    family(text, "halfbyte_serve_on_time_share", "gauge", "Share of answers given by their deadline.", on_time);
}

/// Where models run, and what they hold.
fn sessions(text: &mut String, status: &Status) {
    let models = || status.models.iter().filter_map(|v| Some((v, v.session.as_ref()?)));
    let gauges: [Metric<Report, f64>; 5] = [
        ("halfbyte_serve_weight_bytes", "Bytes of weights in memory, beside the mapped file.", |r| r.weight_bytes as f64),
        ("halfbyte_serve_arena_bytes", "Bytes of a run's intermediates.", |r| r.arena_bytes as f64),
        ("halfbyte_serve_account_bytes", "Bytes of the device's memory that the model holds.", |r| {
            r.accounts.first().map_or(0.0, |a| a.used_bytes as f64)
        }),
        ("halfbyte_serve_plans", "Plans that are kept.", |r| r.plans as f64),
        ("halfbyte_serve_notes", "Times that something else than asked for was done: a fallback.", |r| r.notes.len() as f64),
    ];
    for (name, help, value) in gauges {
        family(text, name, "gauge", help, models().map(|(v, r)| (of_version(v, &[]), value(r))));
    }
    let device = models().map(|(v, r)| {
        let (device, precision) = (format!("{:?}", r.device).to_lowercase(), format!("{:?}", r.precision).to_lowercase());
        (of_version(v, &[("device", &device), ("device_name", &r.device_name), ("precision", &precision)]), 1)
    });
    family(text, "halfbyte_serve_model_info", "gauge", "Where a model runs, and how exactly.", device);
    let steps = models().flat_map(|(v, r)| r.steps.iter().map(|s| (of_version(v, &[("step", s.rung.name())]), s.tried)));
    family(text, "halfbyte_serve_fallback_steps_total", "counter", "Steps down for want of memory.", steps);
}

/// Pools by name, each once: those of a GPU are all its models', those of the CPU each model's own.
fn pools(status: &Status) -> Vec<(&str, Stats)> {
    let mut found: BTreeMap<&str, Stats> = BTreeMap::new();
    for (version, report) in status.models.iter().filter_map(|v| Some((v, v.session.as_ref()?))) {
        let own = version.engine.as_ref().map_or(&version.known.name, |engine| &engine.name);
        let name = if report.device == DeviceKind::Cpu { own } else { &report.device_name };
        report.pools.iter().take(1).for_each(|pool| drop(found.insert(name, pool.clone())));
    }
    found.into_iter().collect()
}

fn seconds(times: &Quantiles) -> Distribution {
    let at = [(0.5, times.p50_us), (0.9, times.p90_us), (0.99, times.p99_us), (0.999, times.p999_us)];
    let points = at.map(|(share, us)| (share, us / 1e6)).to_vec();
    Distribution { points, sum: times.mean_us * times.count as f64 / 1e6, count: times.count }
}

/// Cumulative, at powers of two.
fn sizes(engine: &Engine) -> Distribution {
    let sizes = &engine.batch_sizes;
    let last = sizes.keys().next_back().map_or(1, |n| n.next_power_of_two());
    let bounds = std::iter::successors(Some(1usize), |n| Some(n * 2)).take_while(|n| *n <= last);
    let points = bounds.map(|n| (n as f64, sizes.range(..=n).map(|(_, batches)| *batches as f64).sum())).collect();
    Distribution { points, sum: engine.answered as f64, count: sizes.values().sum() }
}

fn of_version(version: &Version, more: &[(&str, &str)]) -> String {
    of_model(&version.known.name, &version.known.version.to_string(), more)
}

fn of_model(name: &str, version: &str, more: &[(&str, &str)]) -> String {
    labels(&[&[("model", name), ("version", version)], more].concat())
}
