//! `halfbyte compare`: two models on the same inputs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::args::{Inputs, Running};
use super::measurement::quantile;
use super::output::{print, print_json, table};
use super::sides::{Side, run, sides, times};
use super::{inputs, progress, samples};
use crate::base::Tensor;
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::optimize::{Sample, Samples};
use crate::session::{Model, Session};

/// Arguments of `compare`.
#[derive(Args)]
pub struct CompareArgs {
    /// The original's ONNX file.
    pub original: PathBuf,
    /// The changed model's.
    pub changed: PathBuf,
    /// Samples by input name, along the first axis.
    #[arg(long, conflicts_with = "inputs")]
    data: Option<PathBuf>,
    /// Which array of --data an input is in, e.g. `--array x=test`.
    #[arg(long = "array", value_name = "INPUT=ARRAY", value_parser = samples::pair, requires = "data")]
    arrays: Vec<(String, String)>,
    /// Samples at most; without --data, runs with made inputs.
    #[arg(long)]
    samples: Option<usize>,
    #[command(flatten)]
    inputs: Inputs,
    /// Runs of each model that are timed, by turns.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Fail when an output's signal to noise is less than this, in dB.
    #[arg(long, value_name = "DB")]
    min_sqnr: Option<f64>,
    /// Fail when an output's cosine is less than this.
    #[arg(long, value_name = "COSINE")]
    min_cosine: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

#[derive(serde::Serialize)]
struct Comparison {
    original: Side,
    changed: Side,
    /// Runs compared.
    batches: usize,
    outputs: Vec<OutputLine>,
    passed: bool,
}

/// JSON has no infinity: what is not finite is null there.
#[derive(serde::Serialize)]
struct OutputLine {
    name: String,
    values: usize,
    sqnr_db: f64,
    cosine: f64,
    max_abs_error: f64,
    /// Over the largest magnitude of the original.
    max_relative_error: f64,
    /// Of softmaxed rows, in nats.
    divergence: Option<f64>,
    top1_agreement: Option<f64>,
    equal_share: f64,
    passed: bool,
}

/// Runs the subcommand.
pub fn compare(args: &CompareArgs) -> Result<ExitCode> {
    args.running.runs()?;
    let open = |path: &PathBuf| -> Result<(Model, Session)> {
        let model = progress::loading(path, || Model::open(path))?;
        let session = progress::loading(path, || Session::new(&model, args.running.options(false)))?;
        Ok((model, session))
    };
    let (original, changed) = (open(&args.original)?, open(&args.changed)?);
    let batches = batches(&original.0, args)?;
    let outputs = differences(&original.1, &changed.1, &batches)?;
    let lines: Vec<OutputLine> = outputs.into_iter().map(|(name, d)| line(name, &d, args)).collect();
    let times = times([&original.1, &changed.1], &batches[0], args.runs)?;
    let side = |path: &PathBuf, (model, session): &(Model, Session), times: &[f64]| {
        Side::new(path, model, session, quantile(times, 0.5))
    };
    let done = Comparison {
        original: side(&args.original, &original, &times[0]),
        changed: side(&args.changed, &changed, &times[1]),
        batches: batches.len(),
        passed: lines.iter().all(|l| l.passed),
        outputs: lines,
    };
    if args.json {
        print_json(&done)?
    } else {
        show(&done)
    }
    Ok(if done.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The inputs of each run: from a file, or made, each with another seed.
fn batches(model: &Model, args: &CompareArgs) -> Result<Vec<Sample>> {
    if let Some(path) = &args.data {
        return samples::read(model, path, &args.arrays)?
            .first(args.samples.unwrap_or(usize::MAX))
            .batches(Samples::BATCH)
            .collect();
    }
    let runs = if args.inputs.inputs.is_some() { 1 } else { args.samples.unwrap_or(8).max(1) as u64 };
    (0..runs).map(|i| inputs::inputs(model, &Inputs { seed: args.inputs.seed + i, ..args.inputs.clone() })).collect()
}

/// What is different in each output of the original, over all runs.
fn differences(original: &Session, changed: &Session, batches: &[Sample]) -> Result<Vec<(String, Difference)>> {
    let mut all: Vec<(String, Difference)> =
        original.model().outputs().map(|(n, _)| (n.to_string(), Difference::default())).collect();
    let bar = progress::bar(batches.len() as u64, "comparing");
    for sample in batches {
        let (a, b) = (run(original, sample)?, run(changed, sample)?);
        for (name, difference) in &mut all {
            add(difference, name, a.tensor(name)?, b.tensor(name)?)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(all)
}

fn add(difference: &mut Difference, name: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() != b.shape() {
        return Err(Error::BadInput(format!("output {name:?} has shape {}, in the changed model {}", a.shape(), b.shape())));
    }
    difference.add(&a.to_f64(), &b.to_f64(), a.shape().last().copied().unwrap_or(0));
    Ok(())
}

fn line(name: String, d: &Difference, args: &CompareArgs) -> OutputLine {
    let (sqnr_db, cosine) = (d.sqnr_db(), d.cosine());
    OutputLine {
        name,
        values: d.values,
        sqnr_db,
        cosine,
        max_abs_error: d.max_abs,
        max_relative_error: d.max_relative(),
        divergence: d.divergence(),
        top1_agreement: d.top1_agreement(),
        equal_share: d.equal_share(),
        passed: args.min_sqnr.is_none_or(|least| sqnr_db >= least) && args.min_cosine.is_none_or(|least| cosine >= least),
    }
}

fn show(c: &Comparison) {
    let mut outputs = table(&["output", "SQNR dB", "cosine", "max error", "relative", "KL nats", "same top-1", "equal", ""]);
    for o in &c.outputs {
        let share = |s: f64| format!("{:.2} %", s * 100.0);
        outputs.add_row([
            o.name.clone(),
            format!("{:.2}", o.sqnr_db),
            format!("{:.7}", o.cosine),
            format!("{:.2e}", o.max_abs_error),
            format!("{:.2e}", o.max_relative_error),
            o.divergence.map_or(String::new(), |d| format!("{d:.1e}")),
            o.top1_agreement.map_or(String::new(), share),
            share(o.equal_share),
            (if o.passed { "" } else { "TOO FAR" }).into(),
        ]);
    }
    print(&outputs.to_string());
    print(&sides([&c.original, &c.changed]).to_string());
    let ratio = |of: fn(&Side) -> f64| of(&c.original) / of(&c.changed).max(1e-9);
    print(&format!(
        "{} runs compared; file {:.2} x smaller, constants {:.2} x smaller, {:.2} x faster",
        c.batches,
        ratio(|s| s.file_bytes as f64),
        ratio(|s| s.constant_bytes as f64),
        ratio(|s| s.median_us)
    ));
}
