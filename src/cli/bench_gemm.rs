//! `halfbyte bench gemm`: matrix products with weights packed ahead, as a TSV that other engines' figures can stand beside.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::args::{DeviceName, Running, gemm_types};
use super::interrupt::{self, INTERRUPTED};
use super::measurement::product_roof;
use super::output::{print, print_json, table};
use super::problems::thinned;
use super::progress;
use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Port};
use crate::hardware::{DeviceKind, Peaks, roofline};
use crate::session::{Model, Options, Session};

/// Arguments of `bench gemm`.
#[derive(Args)]
pub struct GemmArgs {
    /// Shapes MxNxK, separated by commas, or a TSV of set, M, N, K.
    #[arg(long, default_value = "128x768x768")]
    shapes: String,
    /// Thread counts of the CPU, separated by commas.
    #[arg(long = "thread-counts", default_value = "1,2", value_delimiter = ',')]
    thread_counts: Vec<usize>,
    /// f32, f16, bf16, u8s8, s8s8, each with "-2:4" for weights of which two in every four are zero; separated by commas.
    #[arg(long, default_value = "f32,f16,u8s8,s8s8", value_delimiter = ',')]
    dtype: Vec<String>,
    /// Print a TSV: peer, dtype, threads, M, N, K, GFLOP/s.
    #[arg(long)]
    tsv: bool,
}

#[derive(serde::Serialize)]
struct Rate {
    kernel: String,
    dtype: String,
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    gflops: f64,
    /// Of the measured peak for these types at these threads; absent where none is measured.
    share_of_peak: Option<f64>,
}

fn shapes(text: &str) -> Result<Vec<[usize; 3]>> {
    let bad = |why: String| Error::BadInput(why);
    if !Path::new(text).is_file() {
        return text.split(',').map(|s| super::args::shape(s).map_err(bad)).collect();
    }
    let list = std::fs::read_to_string(text).map_err(|e| Error::File { path: text.into(), why: e.to_string() })?;
    let rows = list.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    let row = |l: &str| super::args::shape(&l.split('\t').skip(1).take(3).collect::<Vec<_>>().join("x")).map_err(bad);
    rows.map(row).collect()
}

/// A graph of one matrix product with constant weights, of which two in every four may be zero, and its left operand.
pub fn product(dtypes: (DType, DType), [m, n, k]: [usize; 3], two_of_four: bool) -> Result<(Model, Tensor)> {
    let mut random = Xorshift::new(1);
    let (a, b) = (random.fill(dtypes.0, [m, k])?, random.fill(dtypes.1, [k, n])?);
    let b = if two_of_four { thinned(&b)? } else { b };
    let op = if dtypes.0.is_float() { "MatMul" } else { "MatMulInteger" };
    let mut graph = Graph { name: "gemm".into(), ..Graph::default() };
    let (left, right, out) = (graph.add_value("a", None), graph.add_value("b", Some(b)), graph.add_value("c", None));
    graph.nodes.push(Node { name: op.into(), ..Node::new("", op, 13, vec![Some(left), Some(right)], vec![Some(out)]) });
    graph.inputs.push(Port { value: left, dtype: Some(dtypes.0), dims: None });
    graph.outputs.push(Port { value: out, dtype: None, dims: None });
    Ok((Model::from_graph(graph), a))
}

/// One product to measure.
struct Case<'a> {
    shape: [usize; 3],
    threads: usize,
    dtype: &'a str,
    types: (DType, DType),
    two_of_four: bool,
}

fn cases(args: &GemmArgs, on_cpu: bool) -> Result<Vec<Case<'_>>> {
    let mut all = Vec::new();
    let here = [1];
    let threads = if on_cpu { &args.thread_counts[..] } else { &here };
    for shape in shapes(&args.shapes)? {
        for &threads in threads {
            for dtype in &args.dtype {
                let (types, two_of_four) = gemm_types(dtype)?;
                all.push(Case { shape, threads, dtype, types, two_of_four });
            }
        }
    }
    Ok(all)
}

/// Runs the subcommand.
pub fn run(args: &GemmArgs, running: &Running, json: bool) -> Result<ExitCode> {
    let device = running.device.clone().unwrap_or(DeviceName::Here(DeviceKind::Cpu, 0));
    let on_cpu = device.kind()? == DeviceKind::Cpu;
    let cases = cases(args, on_cpu)?;
    let threads = args.thread_counts.iter().filter(|_| on_cpu);
    let peaks: BTreeMap<usize, Peaks> = threads.map(|&t| (t, roofline::measure(t))).collect();
    if args.tsv {
        print("peer\tdtype\tthreads\tM\tN\tK\tgflops");
    }
    interrupt::watch()?;
    let bar = progress::bar(cases.len() as u64, "measuring");
    let mut rates = Vec::new();
    for case in cases.iter().take_while(|_| !interrupt::stopped()) {
        let peak = peaks.get(&case.threads).map(|p| product_roof(case.types.0, p));
        let rate = measure(case, &device, peak, running.kernel.as_deref())?;
        if args.tsv {
            let line = format!("{}\t{}\t{}\t{}\t{}\t{:.2}", rate.dtype, rate.threads, rate.m, rate.n, rate.k, rate.gflops);
            bar.suspend(|| print(&format!("halfbyte:pre\t{line}")));
        }
        rates.push(rate);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if json {
        print_json(&rates)?;
    } else if !args.tsv {
        let mut t = table(&["M x N x K", "types", "threads", "kernel", "GFLOP/s or GOP/s", "of measured peak"]);
        for r in &rates {
            let shape = Shape::from([r.m, r.n, r.k]).to_string();
            let rate = [format!("{:.1}", r.gflops), r.share_of_peak.map_or("".into(), |s| format!("{:.0} %", s * 100.0))];
            t.add_row([shape, r.dtype.clone(), r.threads.to_string(), r.kernel.clone()].into_iter().chain(rate));
        }
        print(&t.to_string());
    }
    Ok(if interrupt::stopped() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Best of many rounds over the whole call: the kernel as a session launches it. `peak` is in giga-operations a second.
fn measure(case: &Case, device: &DeviceName, peak: Option<f64>, kernel: Option<&str>) -> Result<Rate> {
    let (model, a) = product(case.types, case.shape, case.two_of_four)?;
    let threads = case.threads;
    let kernel = kernel.map(str::to_string);
    let (kind, ordinal) = (Some(device.kind()?), device.ordinal());
    let options = Options { device: kind, ordinal, threads: Some(threads), kernel, profile: true, ..Options::default() };
    let session = Session::new(&model, options)?;
    let inputs = [("a", a.view())];
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    let mut rounds = 0;
    while rounds < 5 || (start.elapsed().as_secs_f64() < 0.15 && rounds < 2000) {
        session.run(&inputs)?;
        // The kernel alone: peers are timed without their sessions as well.
        best = session.report().nodes.iter().filter_map(|n| n.measured_us).fold(best, f64::min);
        rounds += 1;
    }
    let [m, n, k] = case.shape;
    let kernel = session.report().nodes.first().map(|n| n.kernel.clone()).unwrap_or_default();
    let gflops = 2.0 * (m * n * k) as f64 / best / 1e3;
    Ok(Rate { kernel, dtype: case.dtype.into(), threads, m, n, k, gflops, share_of_peak: peak.map(|p| gflops / p.max(1e-9)) })
}
