//! `halfbyte bench memory`: allocators replayed over a virtual device, on traces from files, from graphs, and made ones.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::interrupt::{self, INTERRUPTED};
use super::output::{print, print_json, table};
use super::{graph_traces, progress};
use crate::error::{Error, Result};
use crate::memory::replay::{Figures, PolicyDef, Trace, WorkloadDef, all, csv, evaluate, workloads};

/// Arguments of `bench memory`.
#[derive(Args)]
pub struct MemoryArgs {
    /// Replay the .csv files (op,id,size: `a` allocates, `f` frees) of this folder besides the made traces.
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
    /// Replay runs of the .onnx files in this folder, with varying batch and length, besides.
    #[arg(long, value_name = "DIR")]
    graphs: Option<PathBuf>,
    /// Allocators by name, separated by commas; all when left out.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    policy: Vec<String>,
    /// Traces whose names contain one of these, separated by commas; all when left out.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(serde::Serialize)]
struct Row {
    #[serde(flatten)]
    figures: Figures,
    reserved_ratio: Option<f64>,
    smallest_ratio: Option<f64>,
}

impl From<Figures> for Row {
    fn from(figures: Figures) -> Self {
        let (reserved_ratio, smallest_ratio) = (figures.reserved_ratio(), figures.smallest_ratio());
        Row { figures, reserved_ratio, smallest_ratio }
    }
}

/// Allocators of these names; all without names.
fn policies(names: &[String]) -> Result<Vec<&'static PolicyDef>> {
    let known = all;
    let named = |name: &String| {
        let list = || known().map(|p| format!("{} ({})", p.name, p.about)).collect::<Vec<_>>().join(", ");
        known().find(|p| p.name == name).ok_or_else(|| Error::BadInput(format!("--policy {name:?} is none of {}", list())))
    };
    if names.is_empty() { Ok(known().collect()) } else { names.iter().map(named).collect() }
}

impl MemoryArgs {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// The traces asked for. Errors when a file cannot be read, and when none is left.
    fn all_traces(&self) -> Result<Vec<Trace>> {
        let files = self.traces.as_deref().map_or(Ok(Vec::new()), csv::files)?;
        let mut traces: Vec<Trace> = files.iter().map(|path| csv::read(path)).collect::<Result<_>>()?;
        traces.retain(|t| self.wants(&t.name));
        let made = workloads().iter().filter(|w: &&WorkloadDef| self.wants(w.name));
        traces.extend(made.map(|w| (w.make)()));
        if let Some(folder) = &self.graphs {
            let paths = graph_traces::files(folder)?;
            let bar = progress::bar(paths.len() as u64, "planning");
            let (graphs, left_out) = graph_traces::traces(&paths, || bar.inc(1));
            bar.finish_and_clear();
            left_out.iter().for_each(|why| eprintln!("left out: {why}"));
            traces.extend(graphs.into_iter().filter(|t| self.wants(&t.name)));
        }
        if traces.is_empty() {
            let known: Vec<&str> = workloads().iter().map(|w| w.name).collect();
            let why = format!("no trace is named like --only {}; made ones are {}", self.only.join(","), known.join(", "));
            return Err(Error::BadInput(why));
        }
        Ok(traces)
    }
}

/// Runs the subcommand.
pub fn run(args: &MemoryArgs, json: bool) -> Result<ExitCode> {
    let policies = policies(&args.policy)?;
    let traces = args.all_traces()?;
    interrupt::watch()?;
    let bar = progress::bar((traces.len() * policies.len()) as u64, "replaying");
    let cases = traces.iter().flat_map(|t| policies.iter().map(move |p| (t, p)));
    let measured = cases.take_while(|_| !interrupt::stopped()).map(|(trace, policy)| {
        let row = Row::from(evaluate(policy, trace));
        bar.inc(1);
        row
    });
    let rows: Vec<Row> = measured.collect();
    bar.finish_and_clear();
    if json {
        print_json(&rows)?
    } else {
        show(&rows)
    }
    Ok(if interrupt::stopped() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn show(rows: &[Row]) {
    let header = [
        "trace",
        "live MiB",
        "allocator",
        "reserved/live",
        "smallest/live",
        "calls/1000",
        "2nd half",
        "repeated",
        "smallest",
        "fragmented",
        "ns",
    ];
    let mut t = table(&header);
    let calls = |c: Option<f64>| c.map_or("".into(), |c| format!("{c:.2}"));
    let ratio = |r: Option<f64>| r.map_or("never".into(), |r| format!("{r:.3}"));
    for Row { figures: f, reserved_ratio, smallest_ratio } in rows {
        t.add_row([
            f.trace.clone(),
            format!("{:.1}", f.live_bytes as f64 / (1 << 20) as f64),
            f.policy.into(),
            ratio(*reserved_ratio),
            ratio(*smallest_ratio),
            format!("{:.2}", f.calls_per_1000),
            format!("{:.2}", f.steady_calls_per_1000),
            calls(f.repeated_calls_per_1000),
            calls(f.tight_calls_per_1000),
            format!("{:.0} %", f.fragmentation * 100.0),
            format!("{:.0}", f.ns_per_operation),
        ]);
    }
    print(&t.to_string());
}
