//! A model before and after a change: sizes and times.

use std::ops::ControlFlow;
use std::path::Path;

use comfy_table::Table;

use super::convert::file_bytes;
use super::output::table;
use super::progress;
use crate::base::size_text;
use crate::error::Result;
use crate::optimize::{Sample, by_turns};
use crate::session::{Model, Outputs, Session};

/// One of the two models.
#[derive(serde::Serialize)]
pub struct Side {
    /// Its file.
    pub model: String,
    /// With weights beside it.
    pub file_bytes: u64,
    /// Of the constants in the file.
    pub constant_bytes: usize,
    /// Prepared for running, beyond the file.
    pub weight_bytes: usize,
    /// Of the mapped file, what runs read where it lies: tables of embeddings.
    pub mapped_bytes: usize,
    /// What a run takes beside the weights.
    pub arena_bytes: usize,
    /// Median time of a run on the first inputs.
    pub median_us: f64,
}

impl Side {
    /// Of a session that has run.
    pub fn new(path: &Path, model: &Model, session: &Session, median_us: f64) -> Self {
        let report = session.report();
        Side {
            model: path.display().to_string(),
            file_bytes: file_bytes(path),
            constant_bytes: model.graph().constant_bytes(),
            weight_bytes: report.weight_bytes,
            mapped_bytes: report.mapped_bytes,
            arena_bytes: report.arena_bytes,
            median_us,
        }
    }
}

/// Both, one a row.
pub fn sides(both: [&Side; 2]) -> Table {
    let mut sides = table(&["model", "file", "constants", "prepared weights", "read in the file", "arena", "time of a run"]);
    for s in both {
        let held = [s.constant_bytes, s.weight_bytes, s.mapped_bytes, s.arena_bytes].map(|n| n as u64);
        let sizes = std::iter::once(s.file_bytes).chain(held).map(size_text);
        sides.add_row(std::iter::once(s.model.clone()).chain(sizes).chain([format!("{:.1} us", s.median_us)]));
    }
    sides
}

/// A run on a sample.
pub fn run(session: &Session, sample: &Sample) -> Result<Outputs> {
    let named: Vec<_> = sample.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    session.run(&named)
}

/// Microseconds of runs of both, by turns, the first one of each left out; sorted, at least one.
pub fn times(both: [&Session; 2], sample: &Sample, runs: usize) -> Result<[Vec<f64>; 2]> {
    let bar = progress::bar(runs as u64, "timing");
    let turns = by_turns(both, sample, runs.max(1), |_| {
        bar.inc(1);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let mut times = [0, 1].map(|at| turns.iter().map(|turn| turn[at]).collect::<Vec<f64>>());
    times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    Ok(times)
}
