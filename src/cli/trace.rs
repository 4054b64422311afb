//! The chrome trace of a run (chrome://tracing, Perfetto).

use std::path::Path;

use serde_json::json;

use crate::error::{Error, Result};
use crate::session::Report;

/// Writes the report's nodes as complete events.
pub fn write(path: &Path, report: &Report) -> Result<()> {
    let events = report.nodes.iter().filter_map(|n| {
        Some(json!({
            "name": n.op, "cat": report.device, "ph": "X", "pid": 1, "tid": 1,
            "ts": n.started_us?, "dur": n.measured_us?,
            "args": {"node": n.name, "kernel": n.kernel, "device": n.device, "output": n.output, "flops": n.flops, "predicted_us": n.predicted_us},
        }))
    });
    let trace = json!({"displayTimeUnit": "ms", "traceEvents": events.collect::<Vec<_>>()});
    std::fs::write(path, trace.to_string()).map_err(|e| Error::File { path: path.display().to_string(), why: e.to_string() })
}
