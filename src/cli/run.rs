//! `halfbyte run`: one run, and what was done.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::args::{Inputs, Running};
use super::inputs::inputs;
use super::output::{print, print_json, table};
use super::{npz, progress, trace};
use crate::base::{DType, Tensor, size_text};
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::session::{Model, Outputs, Precision, Report, Session};

/// Arguments of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// The ONNX file.
    pub model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    /// Write the outputs here.
    #[arg(long)]
    outputs: Option<PathBuf>,
    /// Compare with these outputs; fails when they differ.
    #[arg(long)]
    check_outputs: Option<PathBuf>,
    /// Largest difference allowed, relative to the largest magnitude of the reference.
    #[arg(long, default_value_t = 1e-3)]
    tol: f64,
    /// Judge by cosine similarity of at least this instead.
    #[arg(long)]
    cos: Option<f64>,
    /// Also run in f16 and int8 and compare with f32.
    #[arg(long)]
    compare_precisions: bool,
    /// Write a chrome trace of the run.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

#[derive(serde::Serialize)]
struct Summary {
    outputs: Vec<OutputLine>,
    checks: Vec<Check>,
    precisions: Vec<PrecisionLine>,
    report: Report,
}

#[derive(serde::Serialize)]
struct OutputLine {
    name: String,
    dtype: DType,
    shape: String,
    first: Vec<f64>,
    top: Option<usize>,
}

/// How an output compares with a reference.
#[derive(serde::Serialize)]
struct Check {
    output: String,
    relative_error: f64,
    cosine: f64,
    passed: bool,
}

#[derive(serde::Serialize)]
struct PrecisionLine {
    precision: Precision,
    microseconds: f64,
    relative_error: f64,
    cosine: f64,
}

/// Runs the subcommand.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    args.running.runs()?;
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let inputs = inputs(&model, &args.inputs)?;
    let session = progress::loading(&args.model, || Session::new(&model, args.running.options(true)))?;
    let outputs = go(&session, &inputs)?;
    if let Some(path) = &args.outputs {
        npz::write(path, outputs.iter())?;
    }
    let checks = match &args.check_outputs {
        Some(path) => check(&outputs, &npz::read(path)?, args)?,
        None => Vec::new(),
    };
    let precisions = if args.compare_precisions { precisions(&model, &inputs, args)? } else { Vec::new() };
    let report = session.report();
    if let Some(path) = &args.trace {
        trace::write(path, &report)?;
    }
    let passed = checks.iter().all(|c| c.passed);
    let lines = outputs.iter().map(|(n, t)| line(n, t)).collect();
    let summary = Summary { outputs: lines, checks, precisions, report };
    if args.json {
        print_json(&summary)?
    } else {
        show(&summary)
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn go(session: &Session, inputs: &[(String, Tensor)]) -> Result<Outputs> {
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    session.run(&named)
}

fn line(name: &str, tensor: &Tensor) -> OutputLine {
    let values = tensor.to_f64();
    let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    let scores = tensor.shape().last().is_some_and(|&n| n == values.len() && (2..=4096).contains(&n));
    OutputLine {
        name: name.into(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_string(),
        first: values.iter().take(6).copied().collect(),
        top: best.filter(|_| scores),
    }
}

/// Largest difference relative to the largest magnitude (1e-2 at least), and cosine similarity.
pub fn compare(got: &[f64], want: &[f64]) -> (f64, f64) {
    let mut difference = Difference::default();
    difference.add(want, got, 0);
    (difference.max_abs / difference.largest.max(1e-2), difference.cosine())
}

fn check(outputs: &Outputs, reference: &[(String, Tensor)], args: &RunArgs) -> Result<Vec<Check>> {
    let one = |(name, want): &(String, Tensor)| {
        let got = outputs.tensor(name)?;
        if got.shape() != want.shape() {
            return Err(Error::BadInput(format!("output {name:?} has shape {}, the reference {}", got.shape(), want.shape())));
        }
        let (relative_error, cosine) = compare(&got.to_f64(), &want.to_f64());
        let passed = args.cos.map_or(relative_error <= args.tol, |least| cosine >= least);
        Ok(Check { output: name.clone(), relative_error, cosine, passed })
    };
    reference.iter().map(one).collect()
}

/// Every precision against f32 on the same inputs: best time of ten runs, and difference over all outputs.
fn precisions(model: &Model, inputs: &[(String, Tensor)], args: &RunArgs) -> Result<Vec<PrecisionLine>> {
    let mut reference: Vec<f64> = Vec::new();
    let mut lines = Vec::new();
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        let mut options = args.running.options(false);
        options.precision = precision;
        let session = Session::new(model, options)?;
        let outputs = go(&session, inputs)?;
        let values: Vec<f64> = outputs.iter().flat_map(|(_, t)| t.to_f64()).collect();
        if precision == Precision::F32 {
            reference = values.clone();
        }
        let mut best = f64::INFINITY;
        for _ in 0..10 {
            let start = std::time::Instant::now();
            go(&session, inputs)?;
            best = best.min(start.elapsed().as_secs_f64() * 1e6);
        }
        let (relative_error, cosine) = compare(&values, &reference);
        lines.push(PrecisionLine { precision, microseconds: best, relative_error, cosine });
    }
    Ok(lines)
}

fn show(summary: &Summary) {
    let mut outputs = table(&["output", "type", "shape", "first values", "best"]);
    for o in &summary.outputs {
        let first: Vec<String> = o.first.iter().map(|v| format!("{v:.4}")).collect();
        let best = o.top.map(|i| i.to_string()).unwrap_or_default();
        outputs.add_row([o.name.clone(), o.dtype.to_string(), o.shape.clone(), first.join(" "), best]);
    }
    print(&outputs.to_string());
    for c in &summary.checks {
        let verdict = if c.passed { "agrees" } else { "DIFFERS" };
        print(&format!(
            "{}: {verdict} with the reference (error {:.1e} of its range, cosine {:.6})",
            c.output, c.relative_error, c.cosine
        ));
    }
    if !summary.precisions.is_empty() {
        let mut lines = table(&["precision", "time", "error to f32", "cosine to f32"]);
        for p in &summary.precisions {
            let time = format!("{:.0} us", p.microseconds);
            let row = [
                format!("{:?}", p.precision).to_lowercase(),
                time,
                format!("{:.1e}", p.relative_error),
                format!("{:.6}", p.cosine),
            ];
            lines.add_row(row);
        }
        print(&lines.to_string());
    }
    print(&report_text(&summary.report));
}

/// A report for people.
pub fn report_text(report: &Report) -> String {
    let mut nodes = table(&["node", "operator", "kernel", "output", "predicted us", "time us", "GFLOP/s"]);
    for n in &report.nodes {
        let measured = n.measured_us.map_or(String::new(), |us| format!("{us:.1}"));
        let time = n.measured_us.unwrap_or(n.predicted_us);
        let rate = if n.flops > 0.0 { format!("{:.1}", n.flops / time.max(1e-3) / 1e3) } else { String::new() };
        nodes.add_row([&n.name, &n.op, &n.kernel, &n.output, &format!("{:.1}", n.predicted_us), &measured, &rate]);
    }
    let total: f64 = report.nodes.iter().filter_map(|n| n.measured_us).sum();
    let mut text = nodes.to_string();
    text += &format!(
        "\n{} ({} threads), {:?}: {total:.0} us in {} kernels; weights {}, arena {}",
        report.device_name,
        report.threads,
        report.precision,
        report.nodes.len(),
        size_text(report.weight_bytes as u64),
        size_text(report.arena_bytes as u64),
    );
    for pool in &report.pools {
        let [live, reserved, most] = [pool.live_bytes, pool.reserved_bytes, pool.peak_reserved_bytes].map(size_text);
        text += &format!("\nmemory: {live} used of {reserved} reserved, {most} at most; {} driver calls", pool.calls.memory());
    }
    for (pass, count) in report.passes.iter().filter(|(_, n)| *n > 0) {
        text += &format!("\npass {pass}: {count}");
    }
    for note in &report.notes {
        text += &format!("\nnote: {note}");
    }
    text
}
