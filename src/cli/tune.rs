//! `halfbyte tune`: measures which kernel is fastest for each problem of a model on a GPU.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::args::{Inputs, Running};
use super::inputs::inputs;
use super::interrupt::{self, INTERRUPTED};
use super::output::{print, print_json, table};
use super::progress;
use crate::base::TensorView;
use crate::error::Result;
use crate::session::{Model, Tuning, tune as measured};

/// Arguments of `tune`.
#[derive(Args)]
pub struct TuneArgs {
    /// The ONNX file.
    pub model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    running: Running,
    /// Seconds at most; what is not measured by then is chosen by prediction as before. Ctrl-C ends it early. Both lose nothing.
    #[arg(long, default_value_t = 60.0)]
    budget: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn tune(args: &TuneArgs) -> Result<ExitCode> {
    args.running.runs()?;
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let given = inputs(&model, &args.inputs)?;
    let named: Vec<(&str, TensorView)> = given.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    interrupt::watch()?;
    let bar = progress::bar(0, "measuring");
    let mut go_on = |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        !interrupt::stopped()
    };
    let budget = Duration::try_from_secs_f64(args.budget.max(0.0)).unwrap_or(Duration::MAX);
    let tuning = measured(&model, &args.running.options(false), &named, budget, &mut go_on)?;
    bar.finish_and_clear();
    if args.json {
        print_json(&tuning)?
    } else {
        show(&tuning)
    }
    Ok(if interrupt::stopped() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn show(tuning: &Tuning) {
    let mut t = table(&["problem", "before", "us", "fastest", "us", "refused"]);
    for f in &tuning.findings {
        let refused: Vec<String> = f.refused.iter().map(|(kernel, why)| format!("{kernel}: {why}")).collect();
        let [before_us, median_us] = [f.before_us, f.median_us].map(|us| format!("{us:.1}"));
        t.add_row([f.problem.clone(), f.before.into(), before_us, f.kernel.into(), median_us, refused.join("; ")]);
    }
    print(&t.to_string());
    match &tuning.file {
        Some(file) => print(&format!("kept in {}", file.display())),
        None => print("not kept: HALFBYTE_CACHE is empty, or there is no home folder"),
    }
    if tuning.left > 0 {
        let ended = if interrupt::stopped() { "it was interrupted" } else { "the budget ended" };
        print(&format!("{} kinds of problem were left when {ended}", tuning.left));
    }
}
