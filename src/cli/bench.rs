//! `halfbyte bench`: latency, throughput and memory of a model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use super::args::{Inputs, Running};
use super::output::{inputs, print, print_json, table};
use super::run::size;
use super::{bench_gemm, trace};
use crate::error::{Error, Result};
use crate::hardware;
use crate::session::{Model, Precision, Session};

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// The ONNX file, or `gemm` for matrix products.
    pub model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    running: Running,
    /// Measure for this long.
    #[arg(long, default_value_t = 3.0)]
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
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Measurement {
    model: String,
    precision: String,
    threads: usize,
    runs: usize,
    mean_us: f64,
    std_us: f64,
    p50_us: f64,
    p90_us: f64,
    p95_us: f64,
    p99_us: f64,
    runs_per_second: f64,
    gflops: f64,
    /// Of the machine's measured f32 peak at these threads.
    share_of_roof: Option<f64>,
    peak_memory_bytes: usize,
}

/// Runs the subcommand.
pub fn bench(args: &BenchArgs) -> Result<ExitCode> {
    if args.model.as_os_str() == "gemm" {
        return bench_gemm::run(&args.gemm, args.running.kernel.as_deref(), args.json);
    }
    let model = Model::open(&args.model)?;
    let inputs = inputs(&model, &args.inputs)?;
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let session = Session::new(&model, args.running.options(false))?;
    for _ in 0..args.warmup.max(1) {
        session.run(&named)?;
    }
    let bar = ProgressBar::new((args.seconds * 10.0) as u64);
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs_f64(args.seconds) || times.is_empty() {
        let one = Instant::now();
        session.run(&named)?;
        times.push(one.elapsed().as_secs_f64() * 1e6);
        bar.set_position((start.elapsed().as_secs_f64() * 10.0) as u64);
    }
    bar.finish_and_clear();
    let report = session.report();
    if let Some(path) = &args.trace {
        let profiled = Session::new(&model, args.running.options(true))?;
        profiled.run(&named)?;
        profiled.run(&named)?;
        trace::write(path, &profiled.report())?;
    }
    let flops = report.nodes.iter().map(|n| n.flops).sum();
    let m = measure(args, report.precision, report.threads, flops, times);
    if args.json {
        print_json(&m)?
    } else {
        show(&m)
    }
    match &args.compare {
        Some(path) => compare(&m, path),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn measure(args: &BenchArgs, precision: Precision, threads: usize, flops: f64, mut times: Vec<f64>) -> Measurement {
    times.sort_by(f64::total_cmp);
    let n = times.len() as f64;
    let mean = times.iter().sum::<f64>() / n;
    let at = |p: f64| times[((n * p).ceil() as usize).clamp(1, times.len()) - 1];
    let gflops = flops / at(0.5) / 1e3;
    let roof = hardware::roofline::measure(threads).f32_gflops;
    Measurement {
        model: args.model.display().to_string(),
        precision: format!("{precision:?}").to_lowercase(),
        threads,
        runs: times.len(),
        mean_us: mean,
        std_us: (times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n).sqrt(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p95_us: at(0.95),
        p99_us: at(0.99),
        runs_per_second: 1e6 / mean,
        gflops,
        share_of_roof: (roof > 0.0).then(|| gflops / roof),
        peak_memory_bytes: peak_memory_bytes(),
    }
}

/// The process's largest resident size; 0 where the system does not say.
fn peak_memory_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<usize>().ok()).map_or(0, |kib| kib * 1024)
}

fn show(m: &Measurement) {
    let mut t = table(&["runs", "mean us", "std", "p50", "p90", "p95", "p99", "runs/s", "GFLOP/s", "of roof", "peak memory"]);
    let times =
        [m.mean_us, m.std_us, m.p50_us, m.p90_us, m.p95_us, m.p99_us, m.runs_per_second, m.gflops].map(|v| format!("{v:.1}"));
    let roof = m.share_of_roof.map_or("?".into(), |r| format!("{:.0} %", r * 100.0));
    t.add_row(std::iter::once(m.runs.to_string()).chain(times).chain([roof, size(m.peak_memory_bytes)]));
    print(&t.to_string());
}

fn compare(new: &Measurement, path: &std::path::Path) -> Result<ExitCode> {
    let fail = |why: String| Error::File { path: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let old: Measurement = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
    let ratio = new.p50_us / old.p50_us;
    print(&format!("p50 {:.1} us, was {:.1} us: {ratio:.2} x", new.p50_us, old.p50_us));
    Ok(ExitCode::SUCCESS)
}
