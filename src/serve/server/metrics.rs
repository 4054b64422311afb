//! Figures in Prometheus' text format (version 0.0.4).

use std::fmt::Write;

use super::service::Service;
use crate::serve::protocol::messages::{InferStatistics, ModelStatistics, StatisticDuration};

/// A stage of requests: its name, and its figures.
type Stage = (&'static str, fn(&InferStatistics) -> Option<StatisticDuration>);

const STAGES: [Stage; 4] =
    [("success", |s| s.success), ("fail", |s| s.fail), ("queue", |s| s.queue), ("compute", |s| s.compute_infer)];

/// The figures of the server and of every model that is ready.
pub(super) fn text(service: &Service) -> String {
    let models = service.repository.statistics();
    let mut text = String::new();
    family(
        &mut text,
        "halfbyte_serve_ready",
        "gauge",
        "Whether requests are taken.",
        [("".into(), u64::from(service.is_ready()) as f64)],
    );
    let inside = [("".into(), service.inside() as f64)];
    family(&mut text, "halfbyte_serve_requests_inside", "gauge", "Requests for inference being served.", inside);
    let of = |value: fn(&ModelStatistics) -> u64| models.iter().map(move |m| (labels(m, &[]), value(m) as f64));
    family(
        &mut text,
        "halfbyte_serve_items_total",
        "counter",
        "Items of requests that were answered.",
        of(|m| m.inference_count),
    );
    family(&mut text, "halfbyte_serve_runs_total", "counter", "Runs of the model.", of(|m| m.execution_count));
    let stages = |value: fn(StatisticDuration) -> f64| {
        models.iter().flat_map(move |m| {
            let figures = m.inference_stats.as_ref();
            let one = move |(name, of): &Stage| Some((labels(m, &[("stage", name)]), value(of(figures?)?)));
            STAGES.iter().filter_map(one)
        })
    };
    let count = "Requests by stage: success and fail are whole requests, queue and compute parts of those that succeeded.";
    family(&mut text, "halfbyte_serve_requests_total", "counter", count, stages(|d| d.count as f64));
    let seconds = stages(|d| d.ns as f64 / 1e9);
    family(&mut text, "halfbyte_serve_request_seconds_total", "counter", "Time of those requests.", seconds);
    text
}

fn labels(model: &ModelStatistics, more: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let all = [("model", model.name.as_str()), ("version", model.version.as_str())].into_iter().chain(more.iter().copied());
    let all: Vec<String> = all.map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", all.join(","))
}

fn family(to: &mut String, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (String, f64)>) {
    // Writing to a string does not fail.
    let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(to, "{name}{labels} {value}");
    }
}
