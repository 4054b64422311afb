//! What a session did and why.

use std::collections::BTreeMap;

use crate::device::api::{Command, Timing};
use crate::hardware::DeviceKind;
use crate::memory::pressure::Level;
use crate::memory::{AccountStats, Pool, RungCount, Stats};
use crate::plan::Plan;
use crate::session::Precision;
use crate::session::rung::{Profile, Rung};

/// One executed step.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NodeReport {
    /// Node name in the file (the first of those fused).
    pub name: String,
    /// Operator, with what was fused into it.
    pub op: String,
    /// Kernel that ran it.
    pub kernel: String,
    /// Where it ran.
    pub device: DeviceKind,
    /// Why it ran on the CPU instead of the session's device; `None` when it did not.
    pub fallback: Option<String>,
    /// Why its weights, of which two in every four are zero, are multiplied as if they were not; `None` when they are not, or are no such weights.
    pub dense: Option<String>,
    /// Output element type and shape.
    pub output: String,
    /// Multiplications and additions.
    pub flops: f64,
    /// Time predicted by the chooser, in microseconds.
    pub predicted_us: f64,
    /// Time measured in the last profiled run, in microseconds.
    pub measured_us: Option<f64>,
    /// Start of the last profiled launch since the run's start, in microseconds.
    pub started_us: Option<f64>,
}

/// A way of running a model: a device and a precision.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Way {
    /// Kind of device.
    pub device: DeviceKind,
    /// The device's name.
    pub device_name: String,
    /// Arithmetic of the heavy operators.
    pub precision: Precision,
    /// Whether the last run went this way.
    pub is_used: bool,
    /// Why it was left the last time that it failed.
    pub failed: Option<String>,
}

/// What a session did: device, precision, kernel and time for each node, and every step down with its reason.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Report {
    /// Where it runs.
    pub device: DeviceKind,
    /// The device's name.
    pub device_name: String,
    /// Precision asked for.
    pub precision: Precision,
    /// Threads of CPU kernels.
    pub threads: usize,
    /// Every time that something else than asked for was done, and why.
    pub notes: Vec<String>,
    /// The ways of running the model, in the order in which they are tried.
    pub ways: Vec<Way>,
    /// Passes that changed the graph, and how often.
    pub passes: Vec<(String, usize)>,
    /// Steps of the most recently used plan.
    pub nodes: Vec<NodeReport>,
    /// How often those steps change from the device to the CPU for want of a kernel.
    pub cpu_segments: usize,
    /// Bytes of weights in memory: packed ones, and those that are not read in the model's mapped file.
    pub weight_bytes: usize,
    /// Bytes of weights that the last run's plans read in the mapped file: the system keeps what is used of them, as long as it has room.
    pub mapped_bytes: usize,
    /// Bytes of the arena of the most recently used plan.
    pub arena_bytes: usize,
    /// Most bytes of intermediates alive at one time in that plan: no arena is smaller.
    pub arena_bound_bytes: usize,
    /// The pools that the device's memory comes from.
    pub pools: Vec<Stats>,
    /// Who holds memory of the device: this session's account and its parts.
    pub accounts: Vec<AccountStats>,
    /// What the session itself did for want of memory, beside what its pools asked for: run less at once, or elsewhere.
    pub steps: Vec<RungCount>,
    /// How short the device's memory is, where it is watched.
    pub pressure: Option<Level>,
    /// Plans in the cache.
    pub plans: usize,
    /// Runs so far.
    pub runs: u64,
}

/// The report of a rung's last run.
pub(crate) fn summarize(rung: &Rung, profile: &[<Profile as IntoIterator>::Item], mut notes: Vec<String>, runs: u64) -> Report {
    let info = rung.program.device().info();
    let nodes: Vec<NodeReport> = profile.iter().flat_map(|(plan, timings)| node_reports(plan, timings)).collect();
    let cpu_segments =
        nodes.chunk_by(|a, b| a.fallback.is_some() == b.fallback.is_some()).filter(|s| s[0].fallback.is_some()).count();
    notes.extend(fallback_note(&nodes, cpu_segments));
    notes.extend(dense_note(&nodes));
    Report {
        device: info.kind,
        device_name: info.name.clone(),
        precision: rung.precision,
        threads: info.threads,
        notes,
        ways: Vec::new(),
        passes: rung.passes.clone(),
        nodes,
        cpu_segments,
        weight_bytes: rung.program.weight_bytes(),
        mapped_bytes: rung.program.mapped_bytes(profile.iter().map(|(plan, _)| &**plan)),
        arena_bytes: profile.iter().map(|(p, _)| p.arena_bytes).max().unwrap_or(0),
        arena_bound_bytes: profile.iter().map(|(p, _)| p.arena_bound_bytes).max().unwrap_or(0),
        pools: rung.program.device().pools().into_iter().map(Pool::stats).collect(),
        accounts: rung.program.device().account().stats(),
        steps: Vec::new(),
        pressure: None,
        plans: rung.program.plan_count(),
        runs,
    }
}

/// Which operators the device left to the CPU, and why.
fn fallback_note(nodes: &[NodeReport], segments: usize) -> Option<String> {
    let (count, all) = counted(nodes, |n| n.fallback.as_ref());
    let plural = if segments == 1 { "" } else { "s" };
    let of = nodes.len();
    (count > 0).then(|| format!("{count} of {of} commands run on the CPU, in {segments} segment{plural}: {all}"))
}

/// Which operators multiply zeros that kernels could leave out, and why.
fn dense_note(nodes: &[NodeReport]) -> Option<String> {
    let (count, all) = counted(nodes, |n| n.dense.as_ref());
    (count > 0)
        .then(|| format!("{count} products multiply weights of which two in every four are zero as if they were not: {all}"))
}

/// How many nodes have a reason, and how often each operator has each.
fn counted(nodes: &[NodeReport], reason: impl Fn(&NodeReport) -> Option<&String>) -> (usize, String) {
    let mut why: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for node in nodes {
        if let Some(reason) = reason(node) {
            *why.entry((&node.op, reason)).or_default() += 1;
        }
    }
    let all: Vec<String> = why.iter().map(|((op, reason), n)| format!("{n} x {op} ({reason})")).collect();
    (why.values().sum(), all.join("; "))
}

fn node_reports(plan: &Plan, timings: &[Timing]) -> Vec<NodeReport> {
    let commands = plan.list.commands.iter().zip(&plan.labels).enumerate();
    let output = |c: &Command| c.outputs.iter().flatten().next().map(|s| format!("{} {}", s.ty.dtype, s.ty.shape));
    commands
        .map(|(i, (command, label))| NodeReport {
            name: label.name.clone(),
            op: label.op.clone(),
            kernel: command.kernel.name.to_string(),
            device: command.kernel.device,
            fallback: label.fallback.clone(),
            dense: label.dense.clone(),
            output: output(command).unwrap_or_default(),
            flops: command.problem.flops(),
            predicted_us: command.cost_us,
            measured_us: timings.get(i).map(|t| t.duration_us),
            started_us: timings.get(i).map(|t| t.start_us),
        })
        .collect()
}
