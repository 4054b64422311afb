//! `halfbyte kernels`: what there is, what would be picked, and why not the others.

use std::process::ExitCode;

use clap::Args;

use super::args::{gemm_dtypes, shape};
use super::bench_gemm::product;
use super::output::{print, print_json, table};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::hardware;
use crate::kernel::{all, candidates};
use crate::session::{Options, Session};

/// Arguments of `kernels`.
#[derive(Args)]
pub struct KernelArgs {
    /// A matrix product MxNxK; every kernel is listed when left out.
    #[arg(long, value_parser = shape)]
    gemm: Option<[usize; 3]>,
    /// Types of the product.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Threads of CPU kernels; all cores when left out.
    #[arg(long)]
    threads: Option<usize>,
    /// Prefer kernels whose name contains this.
    #[arg(long)]
    kernel: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Row {
    kernel: &'static str,
    family: String,
    needs: String,
    proof: crate::kernel::Proof,
    picked: bool,
    predicted_us: Option<f64>,
    why_not: Option<String>,
}

/// Runs the subcommand.
pub fn kernels(args: &KernelArgs) -> Result<ExitCode> {
    let rows = match args.gemm {
        Some(shape) => ranked(&problem(args, shape)?, args),
        None => listed(),
    };
    if args.json {
        print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut t = table(&["", "kernel", "family", "needs", "proof", "predicted us", "why not"]);
    for r in &rows {
        let mark = if r.picked { "->" } else { "" };
        let time = r.predicted_us.map_or(String::new(), |v| format!("{v:.1}"));
        let proof = format!("{:?}", r.proof).to_lowercase();
        t.add_row([mark, r.kernel, &r.family, &r.needs, &proof, &time, r.why_not.as_deref().unwrap_or("")]);
    }
    print(&t.to_string());
    Ok(ExitCode::SUCCESS)
}

/// The product's problem as the planner makes it.
fn problem(args: &KernelArgs, shape: [usize; 3]) -> Result<Problem> {
    let types = gemm_dtypes(&args.dtype)
        .ok_or_else(|| Error::BadInput(format!("{:?} is not f32, f16, bf16, u8s8 or s8s8", args.dtype)))?;
    let (model, a) = product(types, shape)?;
    let session = Session::new(&model, Options { threads: args.threads, ..Options::default() })?;
    session.run(&[("a", a.view())])?;
    session.problems().into_iter().next().ok_or_else(|| Error::BadInput("an empty product needs no kernel".into()))
}

fn ranked(problem: &Problem, args: &KernelArgs) -> Vec<Row> {
    let info = hardware::cpu::info(args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())));
    let all = candidates(&info, problem, args.kernel.as_deref());
    let best =
        all.iter().filter_map(|c| c.verdict.as_ref().ok().map(|us| (*us, c.kernel.name))).min_by(|a, b| a.0.total_cmp(&b.0));
    let row = |c: crate::kernel::Candidate| Row {
        picked: best.is_some_and(|(_, name)| name == c.kernel.name),
        predicted_us: c.verdict.as_ref().ok().copied(),
        why_not: c.verdict.err(),
        ..describe(c.kernel)
    };
    all.into_iter().map(row).collect()
}

fn listed() -> Vec<Row> {
    all().map(describe).collect()
}

fn describe(k: &'static crate::kernel::KernelDef) -> Row {
    let family = format!("{:?}", k.family).to_lowercase();
    Row { kernel: k.name, family, needs: k.needs.to_string(), proof: k.proof, picked: false, predicted_us: None, why_not: None }
}
