//! `halfbyte bench`: latency, throughput, memory and rate of a model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::args::{Inputs, Running};
use super::inputs::inputs;
use super::interrupt::{self, INTERRUPTED};
use super::measurement::{Comparison, Measurement, compare, show};
use super::output::print_json;
use super::progress;
use super::{bench_batching, bench_gemm, bench_memory, bench_search, trace};
use crate::base::TensorView;
use crate::error::Result;
use crate::hardware::{self, host::HostMemory};
use crate::session::{Model, Session};

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// The ONNX file, `gemm` for matrix products, `memory` for allocators, `batching` for the batch scheduler, `search` for
    /// nearest neighbours, or `serve` for a server that runs.
    pub model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    running: Running,
    /// Measure for this long; Ctrl-C ends it early and reports what was measured.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Runs before the clock starts.
    #[arg(long, default_value_t = 5)]
    warmup: usize,
    /// Compare with a result saved from `--json`.
    #[arg(long)]
    compare: Option<PathBuf>,
    /// Write a chrome trace of one run.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) gemm: bench_gemm::GemmArgs,
    #[command(flatten)]
    memory: bench_memory::MemoryArgs,
    #[command(flatten)]
    batching: bench_batching::BatchingArgs,
    #[command(flatten)]
    search: bench_search::SearchArgs,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    serve: super::bench_serve::ServeLoadArgs,
}

#[derive(serde::Serialize)]
struct Answer {
    #[serde(flatten)]
    measured: Measurement,
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Comparison>,
}

/// Runs the subcommand.
pub fn bench(args: &BenchArgs) -> Result<ExitCode> {
    if args.model.as_os_str() == "gemm" {
        return bench_gemm::run(&args.gemm, &args.running, args.json);
    }
    if args.model.as_os_str() == "memory" {
        return bench_memory::run(&args.memory, args.json);
    }
    if args.model.as_os_str() == "batching" {
        return bench_batching::run(&args.batching, args.json);
    }
    if args.model.as_os_str() == "search" {
        return bench_search::run(&args.search, &args.running, args.seconds, args.json);
    }
    #[cfg(feature = "serve")]
    if args.model.as_os_str() == "serve" {
        return super::bench_serve::run(&args.serve, &args.inputs, args.seconds, args.json);
    }
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let inputs = inputs(&model, &args.inputs)?;
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let session = progress::loading(&args.model, || {
        args.running.runs()?;
        let session = Session::new(&model, args.running.options(false))?;
        (0..args.warmup.max(1)).try_for_each(|_| session.run(&named).map(drop)).map(|()| session)
    })?;
    let times = runs(&session, &named, args.seconds)?;
    if let Some(path) = &args.trace {
        let profiled = Session::new(&model, args.running.options(true))?;
        profiled.run(&named)?;
        profiled.run(&named)?;
        trace::write(path, &profiled.report())?;
    }
    let measured = measurement(args, &session, times);
    let compared = args.compare.as_deref().map(|path| compare(&measured, path)).transpose()?;
    if args.json {
        print_json(&Answer { measured, compared })?
    } else {
        show(&measured, compared.as_ref())
    }
    Ok(if interrupt::stopped() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=1e9).contains(s));
    seconds.ok_or_else(|| format!("{text:?} is no number of seconds from 0 on"))
}

/// Microseconds of each run for so long, or until Ctrl-C; one run at least.
fn runs(session: &Session, inputs: &[(&str, TensorView)], seconds: f64) -> Result<Vec<f64>> {
    interrupt::watch()?;
    let bar = progress::bar((seconds * 10.0) as u64, "measuring");
    let (start, mut times) = (Instant::now(), Vec::new());
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    while times.is_empty() || (start.elapsed() < limit && !interrupt::stopped()) {
        let one = Instant::now();
        session.run(inputs)?;
        times.push(one.elapsed().as_secs_f64() * 1e6);
        bar.set_position((start.elapsed().as_secs_f64() * 10.0) as u64);
    }
    bar.finish_and_clear();
    Ok(times)
}

fn measurement(args: &BenchArgs, session: &Session, times_us: Vec<f64>) -> Measurement {
    let report = session.report();
    // Read before the roof is measured, which takes memory of its own.
    let peak_memory_bytes = HostMemory::read().peak_resident_bytes.unwrap_or(0) as usize;
    let measured = Measurement {
        model: args.model.display().to_string(),
        precision: format!("{:?}", report.precision).to_lowercase(),
        threads: report.threads,
        batch: args.inputs.batch,
        weight_bytes: report.weight_bytes,
        arena_bytes: report.arena_bytes,
        peak_memory_bytes,
        interrupted: interrupt::stopped(),
        ..Measurement::default()
    };
    measured.with_times(times_us).with_roof(&session.problems(), hardware::roofline::measure(report.threads))
}
