//! `halfbyte kernels`: what there is, what would be picked, and why not the others.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::args::{DeviceName, Inputs, device, gemm_types, shape, sizes};
use super::inputs::inputs;
use super::output::{print, print_json, table};
use super::problems;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::hardware::{self, DeviceInfo, DeviceKind};
use crate::kernel::{Candidate, KernelDef, Proof, all, candidates, choose};
use crate::session::{Model, Options, Session};

/// Arguments of `kernels`.
#[derive(Args)]
pub struct KernelArgs {
    /// A matrix product MxNxK; every kernel is listed when no problem is given.
    #[arg(long, value_parser = shape)]
    gemm: Option<[usize; 3]>,
    /// Types of the product: f32, f16, bf16, u8s8 or s8s8, with "-2:4" for weights of which two in every four are zero.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// A convolution in f32: images x channels x height x width x filters x kernel size.
    #[arg(long, value_name = "NxCxHxWxMxK", value_parser = image, conflicts_with = "gemm")]
    conv: Option<[usize; 6]>,
    /// The problems of a model's nodes, as one run solves them.
    #[arg(long, conflicts_with_all = ["gemm", "conv"])]
    model: Option<PathBuf>,
    /// Only nodes whose name or operator contains this.
    #[arg(long, requires = "model")]
    node: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Load every PTX text into this machine's NVIDIA driver, and print what its assembler says.
    #[cfg(feature = "cuda")]
    #[arg(long, conflicts_with_all = ["gemm", "conv", "model"])]
    load: bool,
    /// For this device: cpu, wgpu, or a GPU that need not be here, e.g. h200.
    #[arg(long, value_parser = device)]
    device: Option<DeviceName>,
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

fn image(text: &str) -> Result<[usize; 6], String> {
    sizes(text, "NxCxHxWxMxK")
}

#[derive(serde::Serialize)]
struct Row {
    /// What is to be solved; absent in the list of all kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    kernel: &'static str,
    family: String,
    device: DeviceKind,
    needs: String,
    proof: Proof,
    picked: bool,
    predicted_us: Option<f64>,
    why_not: Option<String>,
}

/// Runs the subcommand.
pub fn kernels(args: &KernelArgs) -> Result<ExitCode> {
    #[cfg(feature = "cuda")]
    if args.load {
        let ordinal = if let Some(DeviceName::Here(_, ordinal)) = args.device { ordinal } else { 0 };
        return super::load::load(ordinal, args.json);
    }
    let info = match &args.device {
        Some(DeviceName::Planned(info)) => (**info).clone(),
        Some(DeviceName::Here(DeviceKind::Wgpu, ordinal)) => hardware::probe::wgpu_info(*ordinal).map_err(Error::BadInput)?,
        Some(DeviceName::Here(kind, _)) if *kind != DeviceKind::Cpu => {
            return Err(Error::BadInput("kernels are shown for cpu, for wgpu, or for a GPU by its model, e.g. h200".into()));
        }
        _ => hardware::cpu::info(args.threads.unwrap_or_else(|| hardware::cpu::info(1).cores)),
    };
    let ranked = |(what, problem): (String, Problem)| (Some(what.clone()), ranked(what, &problem, &info, args));
    let tables: Vec<(Option<String>, Vec<Row>)> = match wanted(args)? {
        Some(problems) => problems.into_iter().map(ranked).collect(),
        None => vec![(None, all().map(row).collect())],
    };
    if args.json {
        print_json(&tables.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    for (what, rows) in &tables {
        what.iter().for_each(|w| print(w));
        show(rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// The problems asked for, each with a name for people.
fn wanted(args: &KernelArgs) -> Result<Option<Vec<(String, Problem)>>> {
    let text = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    if let Some(shape) = args.gemm {
        let (types, two_of_four) = gemm_types(&args.dtype)?;
        let problem = problems::gemm(types, shape)?;
        let problem = if two_of_four { problems::two_of_four(problem) } else { problem };
        return Ok(Some(vec![(format!("gemm {} {}", text(&shape), args.dtype), problem)]));
    }
    if let Some(shape) = args.conv {
        return Ok(Some(vec![(format!("conv {} f32", text(&shape)), problems::conv(shape)?)]));
    }
    let Some(path) = &args.model else { return Ok(None) };
    let model = Model::open(path)?;
    let inputs = inputs(&model, &args.inputs)?;
    let session = Session::new(&model, Options { device: Some(DeviceKind::Cpu), threads: args.threads, ..Options::default() })?;
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    session.run(&named)?;
    let nodes = session.report().nodes;
    let matches = |text: &str| args.node.as_deref().is_none_or(|n| text.contains(n));
    let solved = nodes.iter().zip(session.problems()).filter(|(n, _)| matches(&n.name) || matches(&n.op));
    let found: Vec<_> = solved.map(|(n, p)| (format!("node {} ({}) -> {}", n.name, n.op, n.output), p)).collect();
    if found.is_empty() {
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        return Err(Error::BadInput(format!("no node that runs is called so; there are {}", names.join(", "))));
    }
    Ok(Some(found))
}

fn ranked(what: String, problem: &Problem, info: &DeviceInfo, args: &KernelArgs) -> Vec<Row> {
    let wanted = args.kernel.as_deref();
    let pick = choose(info, problem, wanted).ok().map(|c| c.kernel.name);
    let row = |c: Candidate| Row {
        problem: Some(what.clone()),
        picked: pick == Some(c.kernel.name),
        predicted_us: c.verdict.as_ref().ok().copied(),
        why_not: c.verdict.err(),
        ..row(c.kernel)
    };
    candidates(info, problem, wanted).into_iter().map(row).collect()
}

fn row(k: &'static KernelDef) -> Row {
    Row {
        problem: None,
        kernel: k.name,
        family: format!("{:?}", k.family).to_lowercase(),
        device: k.device,
        needs: k.needs.to_string(),
        proof: k.proof,
        picked: false,
        predicted_us: None,
        why_not: None,
    }
}

fn show(rows: &[Row]) {
    let mut t = table(&["", "kernel", "family", "needs", "proof", "predicted us", "why not"]);
    for r in rows {
        let mark = if r.picked { "->" } else { "" };
        let time = r.predicted_us.map_or(String::new(), |v| format!("{v:.1}"));
        // Those that would do are beaten on time alone.
        let slower = if r.predicted_us.is_some() && !r.picked { "slower" } else { "" };
        let proof = format!("{:?}", r.proof).to_lowercase();
        t.add_row([mark, r.kernel, &r.family, &r.needs, &proof, &time, r.why_not.as_deref().unwrap_or(slower)]);
    }
    print(&t.to_string());
}
