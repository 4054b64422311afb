//! `halfbyte optimize`: a smaller and faster model within a budget of worse answers, and the report that shows it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::page;
use super::report::{self, Decided, Hashed, Report};
use super::splits::Splits;
use crate::calibrate::Metric;
use crate::cli::args::Running;
use crate::cli::output::print_json;
use crate::cli::samples::{self, SampleArgs};
use crate::cli::{interrupt, progress};
use crate::error::Result;
use crate::export::onnx;
use crate::optimize::budget::{Attempt, Budget, within_budget};
use crate::optimize::quantize::prepared;
use crate::optimize::{Best, QuantizeOptions, best_of, faster, multiplications};
use crate::session::Model;

/// Arguments of `optimize`.
#[derive(Args)]
pub struct OptimizeArgs {
    /// The ONNX file.
    pub model: PathBuf,
    /// Where to write the optimised model.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// How far the mean score may fall: 1% or 0.01.
    #[arg(long, value_parser = share, default_value = "1%")]
    pub budget: f64,
    /// Samples that ranges come from.
    #[command(flatten)]
    pub calibrate: SampleArgs,
    /// Samples that choose, as an .npz; without --test a random half of them is set aside to show what the choice costs.
    #[arg(long, value_name = "FILE")]
    pub select: PathBuf,
    /// Samples that show what the choice costs, as an .npz with arrays named as in --select.
    #[arg(long, value_name = "FILE")]
    pub test: Option<PathBuf>,
    /// The array of --select and --test that holds the samples of an input, where it has another name.
    #[arg(long = "select-array", value_name = "INPUT=ARRAY", value_parser = samples::pair)]
    pub select_arrays: Vec<(String, String)>,
    /// The array of --select and --test that holds the right classes; of texts, those of their characters, filled up with blanks.
    #[arg(long, value_name = "ARRAY")]
    pub labels: Option<String>,
    /// What answers are judged by: accuracy (with --labels), agreement with the original's classes (without), cosine, mask:THRESHOLD,
    /// characters:BLANK or text:BLANK (the whole text; both with or without --labels), all of the first output.
    #[arg(long)]
    pub metric: Option<Metric>,
    /// Judge by the drop that is measured rather than by what its 95 % interval shows, for few samples; the report says so.
    #[arg(long)]
    pub unproven: bool,
    /// A node that stays as it is; may be given often.
    #[arg(long, value_name = "NODE")]
    pub keep: Vec<String>,
    /// Quantise also layers that 8 bits do not make faster on this machine; without it they stay in floats, by times that differ from call
    /// to call.
    #[arg(long)]
    pub smallest: bool,
    /// Samples of a run by which layers are timed.
    #[arg(long, value_name = "SAMPLES", default_value_t = 1)]
    pub timed_batch: usize,
    /// Where to write the report as JSON; the same as a page with charts is written beside it, as .html.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Draws the halves of --select.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Runs of each model that are timed, by turns.
    #[arg(long, default_value_t = 20)]
    pub runs: usize,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// How to run.
    #[command(flatten)]
    pub running: Running,
}

/// A share as 0.01 or 1%.
fn share(text: &str) -> std::result::Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.trim().parse::<f64>() {
        Ok(value) if (0.0..scale).contains(&value) => Ok(value / scale),
        _ => Err(format!("{text:?} is no share: 1% or 0.01")),
    }
}

/// Optimises, writes the model where the budget holds, and the report always.
pub fn run(args: &OptimizeArgs) -> Result<ExitCode> {
    args.running.runs()?;
    page::check_paths(&args.output, args.report.as_deref())?;
    interrupt::watch()?;
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let splits = Splits::new(args, &model)?;
    let (source, decided) = (Hashed::new(&args.model)?, decide(args, &model, &splits)?);
    if decided.is_within {
        onnx::write(&decided.found.quantized.graph, &report::metadata(args, &model, &source), &args.output)?;
    }
    let (is_within, is_stopped) = (decided.is_within, decided.found.is_stopped);
    let report = Report::new(args, source, &model, &splits, decided)?;
    if let Some(path) = &args.report {
        page::write(&report, path)?;
    }
    if args.json {
        print_json(&report)?
    } else {
        report.show()
    }
    Ok(match (is_stopped, is_within) {
        (true, _) => ExitCode::from(interrupt::INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// The best way on the selection's samples, as many layers as they allow, and what the test's samples say of that.
fn decide(args: &OptimizeArgs, model: &Model, splits: &Splits) -> Result<Decided> {
    let model = prepared(model)?;
    let bar = progress::bar(0, "");
    let go_on = |what: &'static str, done: usize, all: usize| {
        bar.set_message(what);
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        !interrupt::stopped()
    };
    let base = QuantizeOptions { keep: args.keep.clone(), ..QuantizeOptions::default() };
    let samples = splits.calibrate.as_ref();
    let mut told = |done, all| go_on("trying ways", done, all);
    let Best { options, calibrated, tried } = best_of(&model, &base, samples, &splits.choosing, &mut told)?;
    let budget = args.budget();
    let mut told = |what, done, all| go_on(what, done, all);
    let mut found = within_budget(&calibrated, &splits.select, budget, &mut told)?;
    let run = splits.choosing.runs(args.timed_batch.max(1)).next().filter(|_| !args.smallest).transpose()?;
    let options_of_runs = args.running.options(false);
    let timed =
        run.map(|(_, sample)| faster(&calibrated, &splits.select, budget, (&sample, &options_of_runs), &mut found, &mut told));
    let reversions = timed.transpose()?.unwrap_or_default();
    bar.finish_and_clear();
    let chosen = &found.attempts[found.chosen];
    let shown = Attempt::new(&splits.test, &found.quantized.graph, chosen.kept.clone(), chosen.stored, budget)?;
    let is_within = chosen.is_within && shown.is_within;
    let first = splits.choosing.batches(1).next().transpose()?.unwrap_or_default();
    Ok(Decided { options, tried, found, reversions, shown, is_within, work: multiplications(&model, &first)? })
}

impl OptimizeArgs {
    /// How much worse answers may be.
    pub fn budget(&self) -> Budget {
        Budget { drop: self.budget, is_proven: !self.unproven }
    }
}
