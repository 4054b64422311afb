//! `halfbyte bench gemm`: matrix products with weights packed ahead, as a TSV that other engines' figures can stand beside.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::args::gemm_dtypes;
use super::output::{print, print_json, table};
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Port};
use crate::session::{Model, Options, Session};

/// Arguments of `bench gemm`.
#[derive(Args)]
pub struct GemmArgs {
    /// Shapes MxNxK, separated by commas, or a TSV of set, M, N, K.
    #[arg(long, default_value = "128x768x768")]
    shapes: String,
    /// Thread counts, separated by commas.
    #[arg(long = "thread-counts", default_value = "1,2", value_delimiter = ',')]
    thread_counts: Vec<usize>,
    /// f32, f16, bf16, u8s8, s8s8; separated by commas.
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

/// A graph of one matrix product with constant weights.
pub fn product(dtypes: (DType, DType), [m, n, k]: [usize; 3]) -> Result<(Model, Tensor)> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as usize
    };
    let mut random = |dtype: DType, shape: [usize; 2]| -> Result<Tensor> {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| (next() % 17) as f32 / 8.0 - 1.0).collect();
        match dtype {
            DType::U8 => Tensor::new(shape, &values.iter().map(|v| ((v + 1.0) * 127.0) as u8).collect::<Vec<_>>()),
            DType::I8 => Tensor::new(shape, &values.iter().map(|v| (v * 127.0) as i8).collect::<Vec<_>>()),
            DType::F16 => Tensor::new(shape, &values.iter().map(|v| half::f16::from_f32(*v)).collect::<Vec<_>>()),
            DType::BF16 => Tensor::new(shape, &values.iter().map(|v| half::bf16::from_f32(*v)).collect::<Vec<_>>()),
            _ => Tensor::new(shape, &values),
        }
    };
    let (a, b) = (random(dtypes.0, [m, k])?, random(dtypes.1, [k, n])?);
    let op = if dtypes.0.is_float() { "MatMul" } else { "MatMulInteger" };
    let mut graph = Graph { name: "gemm".into(), ..Graph::default() };
    let (left, right, out) = (graph.add_value("a", None), graph.add_value("b", Some(b)), graph.add_value("c", None));
    graph.nodes.push(Node { name: op.into(), ..Node::new("", op, 13, vec![Some(left), Some(right)], vec![Some(out)]) });
    graph.inputs.push(Port { value: left, dtype: Some(dtypes.0), dims: None });
    graph.outputs.push(Port { value: out, dtype: None, dims: None });
    Ok((Model::from_graph(graph), a))
}

/// Runs the subcommand.
pub fn run(args: &GemmArgs, kernel: Option<&str>, json: bool) -> Result<ExitCode> {
    let mut rates = Vec::new();
    if args.tsv {
        print("peer\tdtype\tthreads\tM\tN\tK\tgflops");
    }
    for shape in shapes(&args.shapes)? {
        for &threads in &args.thread_counts {
            for dtype in &args.dtype {
                let types = gemm_dtypes(dtype)
                    .ok_or_else(|| Error::BadInput(format!("{dtype:?} is not f32, f16, bf16, u8s8 or s8s8")))?;
                let rate = measure(types, dtype, shape, threads, kernel)?;
                if args.tsv {
                    print(&format!("halfbyte:pre\t{dtype}\t{threads}\t{}\t{}\t{}\t{:.2}", rate.m, rate.n, rate.k, rate.gflops));
                }
                rates.push(rate);
            }
        }
    }
    if json {
        print_json(&rates)?;
    } else if !args.tsv {
        let mut t = table(&["M x N x K", "types", "threads", "kernel", "GFLOP/s or GOP/s"]);
        for r in &rates {
            let shape = Shape::from([r.m, r.n, r.k]).to_string();
            t.add_row([shape, r.dtype.clone(), r.threads.to_string(), r.kernel.clone(), format!("{:.1}", r.gflops)]);
        }
        print(&t.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Best of many rounds over the whole call: the kernel as a session launches it.
fn measure(types: (DType, DType), dtype: &str, shape: [usize; 3], threads: usize, kernel: Option<&str>) -> Result<Rate> {
    let (model, a) = product(types, shape)?;
    let options = Options { threads: Some(threads), kernel: kernel.map(str::to_string), profile: true, ..Options::default() };
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
    let [m, n, k] = shape;
    let kernel = session.report().nodes.first().map(|n| n.kernel.clone()).unwrap_or_default();
    Ok(Rate { kernel, dtype: dtype.into(), threads, m, n, k, gflops: 2.0 * (m * n * k) as f64 / best / 1e3 })
}
