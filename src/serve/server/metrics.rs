//! Figures in Prometheus' text format (version 0.0.4).

use super::service::Service;
use crate::base::exposition::{family, labels};
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
        [(String::new(), u8::from(service.is_ready()))].into_iter(),
    );
    let inside = [(String::new(), service.inside())].into_iter();
    family(&mut text, "halfbyte_serve_requests_inside", "gauge", "Requests for inference being served.", inside);
    let of = |value: fn(&ModelStatistics) -> u64| models.iter().map(move |m| (of_model(m, &[]), value(m)));
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
            let one = move |(name, of): &Stage| Some((of_model(m, &[("stage", name)]), value(of(figures?)?)));
            STAGES.iter().filter_map(one)
        })
    };
    let count = "Requests by stage: success and fail are whole requests, queue and compute parts of those that succeeded.";
    family(&mut text, "halfbyte_serve_requests_total", "counter", count, stages(|d| d.count as f64));
    let seconds = stages(|d| d.ns as f64 / 1e9);
    family(&mut text, "halfbyte_serve_request_seconds_total", "counter", "Time of those requests.", seconds);
    text
}

fn of_model(model: &ModelStatistics, more: &[(&str, &str)]) -> String {
    let own = [("model", model.name.as_str()), ("version", model.version.as_str())];
    labels(&[&own, more].concat())
}
