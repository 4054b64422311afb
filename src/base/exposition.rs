//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

/// All samples of one metric under its description; nothing without samples.
pub fn family<V: Display>(text: &mut String, name: &str, kind: &str, help: &str, samples: impl Iterator<Item = (String, V)>) {
    let mut samples = samples.peekable();
    if samples.peek().is_some() {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{{{labels}}} {value}");
    }
}

/// How values are spread.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Of a summary: values by quantile in [0, 1]. Of a histogram: how many are at most so large, by bound.
    pub points: Vec<(f64, f64)>,
    /// Sum of the values.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

/// Summaries of one metric: quantiles, sum and count.
pub fn summary(text: &mut String, name: &str, help: &str, samples: impl Iterator<Item = (String, Distribution)>) {
    spread(text, name, ["summary", help, "", "quantile"], samples);
}

/// Histograms of one metric: how many are at most as large as each bound, sum and count.
pub fn histogram(text: &mut String, name: &str, help: &str, samples: impl Iterator<Item = (String, Distribution)>) {
    let all = samples.map(|(labels, mut spread)| {
        spread.points.push((f64::INFINITY, spread.count as f64));
        (labels, spread)
    });
    spread(text, name, ["histogram", help, "_bucket", "le"], all);
}

fn spread(text: &mut String, name: &str, kind: [&str; 4], samples: impl Iterator<Item = (String, Distribution)>) {
    let ([kind, help, suffix, label], mut samples) = (kind, samples.peekable());
    if samples.peek().is_some() {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
    for (labels, Distribution { points, sum, count }) in samples {
        let comma = if labels.is_empty() { "" } else { "," };
        for (at, value) in points {
            let at = if at.is_infinite() { "+Inf".to_string() } else { at.to_string() };
            let _ = writeln!(text, "{name}{suffix}{{{labels}{comma}{label}=\"{at}\"}} {value}");
        }
        let _ = write!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n");
    }
}

/// Labels of a sample, escaped.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_and_histograms_have_their_sums_and_counts() {
        let mut text = String::new();
        let times = Distribution { points: vec![(0.5, 0.25), (0.99, 2.0)], sum: 3.5, count: 4 };
        summary(&mut text, "t_seconds", "Times.", [(labels(&[("m", "a")]), times)].into_iter());
        let sizes = Distribution { points: vec![(1.0, 2.0), (2.0, 3.0)], sum: 9.0, count: 4 };
        histogram(&mut text, "sizes", "Sizes.", [(String::new(), sizes)].into_iter());
        summary(&mut text, "nothing", "Nothing.", [].into_iter());
        let expected = r#"# HELP t_seconds Times.
# TYPE t_seconds summary
t_seconds{m="a",quantile="0.5"} 0.25
t_seconds{m="a",quantile="0.99"} 2
t_seconds_sum{m="a"} 3.5
t_seconds_count{m="a"} 4
# HELP sizes Sizes.
# TYPE sizes histogram
sizes_bucket{le="1"} 2
sizes_bucket{le="2"} 3
sizes_bucket{le="+Inf"} 4
sizes_sum{} 9
sizes_count{} 4
"#;
        assert_eq!(text, expected);
    }
}
