//! What `halfbyte bench` found, and how it compares with what it found before.

use std::path::Path;

use super::output::{print, table};
use crate::base::{DType, size_text};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::hardware::Peaks;

/// Timings of a model's runs.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Measurement {
    pub(super) model: String,
    pub(super) precision: String,
    pub(super) threads: usize,
    pub(super) runs: usize,
    pub(super) mean_us: f64,
    pub(super) std_us: f64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p95_us: f64,
    pub(super) p99_us: f64,
    pub(super) runs_per_second: f64,
    /// Of the batch asked for.
    pub(super) batch: Option<usize>,
    pub(super) items_per_second: Option<f64>,
    /// Multiplications and additions of one run.
    pub(super) flops: f64,
    /// At the median.
    pub(super) gflops: f64,
    /// The time that the run's arithmetic takes at the machine's measured peaks (int8 for quantised products, f32 for all
    /// else), over the median.
    pub(super) share_of_roof: Option<f64>,
    /// The measured peaks at these threads.
    pub(super) roof_f32_gflops: f64,
    pub(super) roof_int8_gops: f64,
    pub(super) weight_bytes: usize,
    pub(super) arena_bytes: usize,
    /// Of the whole process; 0 where the system does not say.
    pub(super) peak_memory_bytes: usize,
    /// Ctrl-C ended it early.
    pub(super) interrupted: bool,
}

impl Measurement {
    /// Puts in mean, spread, percentiles and throughput of `times_us`, which holds at least one.
    pub(super) fn with_times(self, mut times_us: Vec<f64>) -> Self {
        times_us.sort_by(f64::total_cmp);
        let n = times_us.len() as f64;
        let mean_us = times_us.iter().sum::<f64>() / n;
        let at = |p: f64| quantile(&times_us, p);
        Measurement {
            runs: times_us.len(),
            mean_us,
            std_us: (times_us.iter().map(|t| (t - mean_us).powi(2)).sum::<f64>() / n).sqrt(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            runs_per_second: 1e6 / mean_us,
            items_per_second: self.batch.map(|b| b as f64 * 1e6 / mean_us),
            ..self
        }
    }

    /// Puts in rates, against the measured `peaks`, of runs that solve `problems`.
    pub(super) fn with_roof(self, problems: &[Problem], peaks: Peaks) -> Self {
        let flops: f64 = problems.iter().map(Problem::flops).sum();
        Measurement {
            flops,
            gflops: flops / self.p50_us / 1e3,
            share_of_roof: least_us(problems, &peaks).map(|least| least / self.p50_us),
            roof_f32_gflops: peaks.f32_gflops,
            roof_int8_gops: peaks.int8_gops,
            ..self
        }
    }
}

/// The least of these, sorted and at least one, that so large a share of them does not exceed.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// Microseconds that the arithmetic of `problems` takes at the measured peaks; nothing when there is none, or no peak.
pub fn least_us(problems: &[Problem], peaks: &Peaks) -> Option<f64> {
    let least_us: f64 = problems.iter().map(|p| p.flops() / roof(p, peaks) / 1e3).sum();
    (least_us.is_finite() && least_us > 0.0).then_some(least_us)
}

/// Giga-operations a second that bound a problem's arithmetic.
fn roof(problem: &Problem, peaks: &Peaks) -> f64 {
    let int8 = match problem {
        Problem::Gemm(p) => p.quant.is_some(),
        Problem::Conv(p) => p.quant.is_some(),
        _ => false,
    };
    if int8 { peaks.int8_gops } else { peaks.f32_gflops }
}

/// The measured peak that bounds products of these operands.
pub(super) fn product_roof(dtype: DType, peaks: &Peaks) -> f64 {
    if dtype.is_float() { peaks.f32_gflops } else { peaks.int8_gops }
}

/// New over old: below 1 is less than before.
#[derive(serde::Serialize)]
pub struct Comparison {
    /// The file compared with.
    pub with: String,
    p50: f64,
    mean: f64,
    p99: f64,
    runs_per_second: f64,
    peak_memory: f64,
    /// Settings that were others.
    differences: Vec<String>,
}

/// Compares with the measurement that `bench --json` wrote to `path`.
pub fn compare(new: &Measurement, path: &Path) -> Result<Comparison> {
    let fail = |why: String| Error::File { path: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let old: Measurement = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
    if old.p50_us <= 0.0 {
        return Err(fail("not a measurement of `halfbyte bench --json`".into()));
    }
    let settings = [
        ("model", old.model.clone(), new.model.clone()),
        ("precision", old.precision.clone(), new.precision.clone()),
        ("threads", old.threads.to_string(), new.threads.to_string()),
        ("batch", format!("{:?}", old.batch), format!("{:?}", new.batch)),
    ];
    let other = settings.into_iter().filter(|(_, old, new)| old != new);
    Ok(Comparison {
        with: path.display().to_string(),
        p50: new.p50_us / old.p50_us,
        mean: new.mean_us / old.mean_us,
        p99: new.p99_us / old.p99_us,
        runs_per_second: new.runs_per_second / old.runs_per_second,
        peak_memory: new.peak_memory_bytes as f64 / old.peak_memory_bytes.max(1) as f64,
        differences: other.map(|(what, old, new)| format!("{what} was {old}, is {new}")).collect(),
    })
}

/// Prints a measurement for people.
pub fn show(m: &Measurement, compared: Option<&Comparison>) {
    let mut times = table(&["runs", "mean us", "std", "p50", "p90", "p95", "p99", "runs/s", "items/s"]);
    let row = [m.mean_us, m.std_us, m.p50_us, m.p90_us, m.p95_us, m.p99_us, m.runs_per_second].map(|v| format!("{v:.1}"));
    let items = m.items_per_second.map_or(String::new(), |v| format!("{v:.1}"));
    times.add_row(std::iter::once(m.runs.to_string()).chain(row).chain([items]));
    print(&times.to_string());
    let mut rates = table(&["GFLOP/run", "GFLOP/s", "of measured roof", "peak memory", "weights", "arena"]);
    let roof = m.share_of_roof.map_or("?".into(), |r| format!("{:.0} %", r * 100.0));
    let memory = [m.peak_memory_bytes, m.weight_bytes, m.arena_bytes].map(|b| size_text(b as u64));
    rates.add_row([format!("{:.3}", m.flops / 1e9), format!("{:.1}", m.gflops), roof].into_iter().chain(memory));
    print(&rates.to_string());
    if m.interrupted {
        print("interrupted: these are the runs until then");
    }
    let Some(c) = compared else { return };
    print(&format!(
        "against {}: p50 {:.2} x, mean {:.2} x, p99 {:.2} x, runs/s {:.2} x, memory {:.2} x",
        c.with, c.p50, c.mean, c.p99, c.runs_per_second, c.peak_memory
    ));
    c.differences.iter().for_each(|d| print(&format!("note: {d}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=100).rev().map(f64::from).collect();
        let m = Measurement { batch: Some(4), ..Measurement::default() }.with_times(times);
        assert_eq!((m.runs, m.p50_us, m.p90_us, m.p95_us, m.p99_us, m.mean_us), (100, 50.0, 90.0, 95.0, 99.0, 50.5));
        assert!((m.std_us - 833.25f64.sqrt()).abs() < 1e-9, "{}", m.std_us);
        assert_eq!(m.items_per_second, Some(4.0 * m.runs_per_second));
        let one = Measurement::default().with_times(vec![7.0]);
        assert_eq!((one.p50_us, one.p99_us, one.std_us), (7.0, 7.0, 0.0));
    }
}
