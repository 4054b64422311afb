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

/// Labels of a sample, escaped.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect::<Vec<_>>().join(",")
}
