//! `halfbyte inspect`: what a model holds and what it would cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::args::{Inputs, Running};
use super::inputs::inputs;
use super::output::{UNSUPPORTED, print, print_json, table};
use super::progress;
use super::run::report_text;
use crate::base::size_text;
use crate::error::{Error, Result};
use crate::graph::check::{Missing, unsupported};
use crate::graph::{Attr, Graph, Port};
use crate::session::{Model, Report, describe};

/// Arguments of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// The ONNX file.
    pub model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    running: Running,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Inspection {
    inputs: Vec<String>,
    outputs: Vec<String>,
    operators: BTreeMap<String, usize>,
    unsupported: Vec<Missing>,
    parameters: usize,
    parameter_bytes: usize,
    metadata: Vec<(String, String)>,
    /// Of one run with the given sizes; absent when the model cannot run.
    flops: Option<f64>,
    /// Bytes that a run holds beyond the model's file: prepared weights and the arena of intermediates.
    weight_bytes: Option<usize>,
    arena_bytes: Option<usize>,
    /// Each node's kernel, predicted and measured time.
    report: Option<Report>,
    why_no_report: Option<String>,
}

/// Runs the subcommand.
pub fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let missing = unsupported(model.graph());
    let planned = progress::loading(&args.model, || plan(&model, args));
    let supported = missing.is_empty() && !planned.as_ref().is_err_and(Error::is_unsupported);
    let mut operators = BTreeMap::new();
    count(model.graph(), &mut operators);
    let constants = || model.graph().values.iter().filter_map(|v| v.constant.as_ref());
    let port = |(name, p): (&str, &Port)| {
        let dtype = p.dtype.map_or("?".into(), |d| d.to_string());
        format!("{name}: {dtype} {}", p.dims.as_deref().map_or("of any rank".into(), describe))
    };
    let inspection = Inspection {
        inputs: model.inputs().map(port).collect(),
        outputs: model.outputs().map(port).collect(),
        operators,
        parameters: constants().map(|t| t.numel()).sum(),
        parameter_bytes: constants().map(|t| t.bytes().len()).sum(),
        metadata: model.metadata().to_vec(),
        flops: planned.as_ref().ok().map(|r| r.nodes.iter().map(|n| n.flops).sum()),
        weight_bytes: planned.as_ref().ok().map(|r| r.weight_bytes),
        arena_bytes: planned.as_ref().ok().map(|r| r.arena_bytes),
        why_no_report: planned.as_ref().err().map(|e| e.to_string()),
        report: planned.ok(),
        unsupported: missing,
    };
    if args.json {
        print_json(&inspection)?
    } else {
        show(&inspection)
    }
    Ok(if supported { ExitCode::SUCCESS } else { ExitCode::from(UNSUPPORTED) })
}

/// One run on the given or on random inputs: what is shown is what was done, or on a GPU that is not here what would be.
fn plan(model: &Model, args: &InspectArgs) -> Result<Report> {
    let inputs = inputs(model, &args.inputs)?;
    let session = args.running.session(model, args.running.options(true))?;
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    session.run(&named)?;
    Ok(session.report())
}

fn count(graph: &Graph, operators: &mut BTreeMap<String, usize>) {
    for node in &graph.nodes {
        *operators.entry(node.full_op()).or_insert(0) += 1;
        for attr in node.attrs.values() {
            if let Attr::Graph(g) = attr {
                count(g, operators);
            }
        }
    }
}

fn show(i: &Inspection) {
    for line in i.inputs.iter().map(|l| format!("input  {l}")).chain(i.outputs.iter().map(|l| format!("output {l}"))) {
        print(&line);
    }
    print(&format!("{} parameters, {}", i.parameters, size_text(i.parameter_bytes as u64)));
    let mut operators = table(&["operator", "nodes"]);
    i.operators.iter().for_each(|(op, n)| {
        operators.add_row([op.clone(), n.to_string()]);
    });
    print(&operators.to_string());
    for m in &i.unsupported {
        print(&format!("UNSUPPORTED {m}"));
    }
    if let Some(flops) = i.flops {
        print(&format!("{:.3} GFLOP a run", flops / 1e9));
    }
    match (&i.report, &i.why_no_report) {
        (Some(report), _) => print(&report_text(report)),
        (None, Some(why)) if i.unsupported.is_empty() => print(&format!("no run: {why}")),
        _ => {}
    }
}
