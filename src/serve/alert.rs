//! Alerts as data: rules about figures, evaluated over samples of them. What to do about one that fires is its reader's business.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// On which side of the threshold a figure is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

/// A figure that should not stay beyond a threshold.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The figure; any name that samples have, those of [`metric`] among them.
    pub metric: String,
    /// On which side it is wrong.
    pub comparison: Comparison,
    /// The threshold; at it nothing is wrong.
    pub threshold: f64,
    /// For how long it must be wrong.
    pub hold: Duration,
}

/// Figures that the default rules are about.
pub mod metric {
    /// The 99th percentile of latencies as a share of its target.
    pub const P99: &str = "p99_of_target";
    /// Share of requests that the cache answered.
    pub const HIT_RATE: &str = "cache_hit_rate";
    /// Answers evicted for each one kept.
    pub const EVICTIONS: &str = "cache_eviction_rate";
    /// Accuracy lost against the reference, as a share.
    pub const ACCURACY_DRIFT: &str = "accuracy_drift";
    /// Share of requests that a rate limit turned away.
    pub const THROTTLED: &str = "throttled_share";
}

impl Rule {
    /// A rule.
    pub fn new(metric: &str, comparison: Comparison, threshold: f64, hold: Duration) -> Self {
        Rule { metric: metric.into(), comparison, threshold, hold }
    }

    /// The rules for a server unless it is told others: p99 over its target, fewer than 50 % hits, more than 5 % evictions, more than 2 %
    /// of accuracy lost, more than 10 % throttled; each for a minute, but accuracy at once.
    pub fn defaults() -> Vec<Rule> {
        let minute = Duration::from_secs(60);
        vec![
            Rule::new(metric::P99, Comparison::Above, 1.0, minute),
            Rule::new(metric::HIT_RATE, Comparison::Below, 0.5, minute),
            Rule::new(metric::EVICTIONS, Comparison::Above, 0.05, minute),
            Rule::new(metric::ACCURACY_DRIFT, Comparison::Above, 0.02, Duration::ZERO),
            Rule::new(metric::THROTTLED, Comparison::Above, 0.1, minute),
        ]
    }

    /// Whether a value is wrong. One that is not a number always is: whoever computes it does not know.
    fn is_broken_by(&self, value: f64) -> bool {
        match self.comparison {
            _ if value.is_nan() => true,
            Comparison::Above => value > self.threshold,
            Comparison::Below => value < self.threshold,
        }
    }
}

/// A figure of now.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Its name.
    pub metric: String,
    /// What it is of: a model, a tenant; empty for all.
    pub subject: String,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A figure, if it is known.
    pub fn new(metric: &str, subject: &str, value: Option<f64>) -> Option<Sample> {
        value.map(|value| Sample { metric: metric.into(), subject: subject.into(), value })
    }
}

/// A share of a whole; `None` of nothing.
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A rule that has been broken for long enough.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Alert {
    /// The rule.
    pub rule: Rule,
    /// What the figure is of.
    pub subject: String,
    /// The figure now.
    pub value: f64,
    /// For how long it has been wrong.
    pub lasted: Duration,
}

/// Rules, and since when they have been broken.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    rules: Vec<Rule>,
    since: HashMap<(usize, String), Instant>,
}

impl Alerts {
    /// Rules of which none is broken yet.
    pub fn new(rules: Vec<Rule>) -> Self {
        Alerts { rules, since: HashMap::new() }
    }

    /// The alerts that fire, in the order of rules and samples. A figure without a sample is not wrong.
    pub fn evaluate(&mut self, samples: &[Sample], now: Instant) -> Vec<Alert> {
        let (mut since, mut firing) = (HashMap::new(), Vec::new());
        for (i, rule) in self.rules.iter().enumerate() {
            for sample in samples.iter().filter(|s| s.metric == rule.metric && rule.is_broken_by(s.value)) {
                let place = (i, sample.subject.clone());
                let began = self.since.get(&place).copied().unwrap_or(now);
                let lasted = now.saturating_duration_since(began);
                since.insert(place, began);
                if lasted >= rule.hold {
                    firing.push(Alert { rule: rule.clone(), subject: sample.subject.clone(), value: sample.value, lasted });
                }
            }
        }
        self.since = since;
        firing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(metric: &str, subject: &str, value: f64) -> Sample {
        Sample::new(metric, subject, Some(value)).unwrap()
    }

    #[test]
    fn a_rule_fires_once_it_was_broken_for_long_enough_and_stops_when_it_no_longer_is() {
        let (mut alerts, start) = (Alerts::new(Rule::defaults()), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let bad = [sample(metric::HIT_RATE, "bert", 0.4), sample(metric::HIT_RATE, "resnet", 0.6)];
        assert_eq!(alerts.evaluate(&bad, at(0)), []);
        assert_eq!(alerts.evaluate(&bad, at(59)), []);
        let firing = alerts.evaluate(&bad, at(60));
        assert_eq!(firing.len(), 1);
        assert_eq!((firing[0].subject.as_str(), firing[0].value, firing[0].lasted), ("bert", 0.4, Duration::from_secs(60)));
        // One good figure, or none, begins anew.
        assert_eq!(alerts.evaluate(&[sample(metric::HIT_RATE, "bert", 0.5)], at(61)), []);
        assert_eq!(alerts.evaluate(&bad, at(100)), []);
        assert_eq!(alerts.evaluate(&[], at(150)), []);
        assert_eq!(alerts.evaluate(&bad, at(161)), []);
        assert_eq!(alerts.evaluate(&bad, at(221)).len(), 1);
    }

    #[test]
    fn defaults_are_broken_beyond_their_thresholds_alone() {
        let thresholds = [(metric::P99, 1.0, 1.01), (metric::HIT_RATE, 0.5, 0.49), (metric::EVICTIONS, 0.05, 0.051)];
        let thresholds = thresholds.into_iter().chain([(metric::ACCURACY_DRIFT, 0.02, 0.021), (metric::THROTTLED, 0.1, 0.11)]);
        for ((name, fine, wrong), rule) in thresholds.zip(Rule::defaults()) {
            let mut alerts = Alerts::new(vec![Rule { hold: Duration::ZERO, ..rule.clone() }]);
            assert_eq!(rule.metric, name);
            assert_eq!(alerts.evaluate(&[sample(name, "", fine)], Instant::now()), []);
            assert_eq!(alerts.evaluate(&[sample(name, "", wrong)], Instant::now()).len(), 1);
            assert_eq!(alerts.evaluate(&[sample(name, "", f64::NAN)], Instant::now()).len(), 1);
        }
    }
}
