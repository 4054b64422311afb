//! The only place where a kernel is chosen.

use std::collections::BTreeSet;

use super::tune::key;
use super::{KernelDef, Proof, all};
use crate::graph::Problem;
use crate::hardware::DeviceInfo;

/// The kernel picked for a problem.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// The kernel.
    pub kernel: &'static KernelDef,
    /// Predicted time in microseconds.
    pub cost_us: f64,
}

/// One kernel's answer to a problem.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The kernel.
    pub kernel: &'static KernelDef,
    /// Predicted microseconds, or why it is not in the running.
    pub verdict: Result<f64, String>,
}

/// No kernel takes the problem: each one's reason.
#[derive(Debug, Clone)]
pub struct NoKernel(pub Vec<Candidate>);

impl std::fmt::Display for NoKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let say = |c: &Candidate| format!("{}: {}", c.kernel.name, c.verdict.as_ref().err().map_or("", |w| w));
        let reasons: Vec<String> = self.0.iter().map(say).collect();
        if reasons.is_empty() { f.write_str("the device has no kernel of this family") } else { f.write_str(&reasons.join("; ")) }
    }
}

/// What every kernel of the problem's family on this device says to it. `wanted` restricts the choice to kernels whose
/// name contains it, unless none of them takes the problem.
pub fn candidates(info: &DeviceInfo, problem: &Problem, wanted: Option<&str>) -> Vec<Candidate> {
    let family = problem.family();
    let named = |k: &KernelDef| wanted.is_some_and(|w| k.name.contains(w));
    let mut found: Vec<Candidate> = all()
        .filter(|k| k.family == family && k.device == info.kind)
        .map(|kernel| Candidate { kernel, verdict: verdict(kernel, info, problem, named(kernel)) })
        .collect();
    if found.iter().any(|c| named(c.kernel) && c.verdict.is_ok()) {
        for c in found.iter_mut().filter(|c| !named(c.kernel) && c.verdict.is_ok()) {
            c.verdict = Err("another kernel was asked for".into());
        }
    }
    found
}

/// Why a product of weights of which two in every four are zero is computed as if they were not; `None` where it is not.
pub fn why_dense(info: &DeviceInfo, problem: &Problem, chosen: &KernelDef, wanted: Option<&str>) -> Option<String> {
    let of_them = |k: &KernelDef| k.name.contains("-sparse-");
    if !matches!(problem, Problem::Gemm(p) if p.two_of_four) || of_them(chosen) {
        return None;
    }
    let sparse: Vec<Candidate> = candidates(info, problem, wanted).into_iter().filter(|c| of_them(c.kernel)).collect();
    let refusals: BTreeSet<&str> = sparse.iter().filter_map(|c| c.verdict.as_ref().err().map(|why| &why[..])).collect();
    Some(match () {
        _ if sparse.is_empty() => format!("{} has no kernel that leaves them out", info.name),
        _ if sparse.iter().any(|c| c.verdict.is_ok()) => {
            "kernels that leave them out were measured or are predicted to be slower".into()
        }
        _ => refusals.into_iter().collect::<Vec<_>>().join("; "),
    })
}

/// What one kernel says to a problem; `named` when it was asked for.
pub(crate) fn verdict(kernel: &KernelDef, info: &DeviceInfo, problem: &Problem, named: bool) -> Result<f64, String> {
    if !info.capabilities.contains(kernel.needs) {
        return Err(format!("needs {}", kernel.needs - info.capabilities));
    }
    (kernel.accepts)(problem)?;
    if kernel.proof == Proof::Compiled && !named {
        return Err("never run on its instruction set yet; ask for it by name".into());
    }
    Ok((kernel.cost_us)(problem, info))
}

/// The kernel that was measured fastest for such problems, if it is in the running.
fn measured(info: &DeviceInfo, problem: &Problem, all: &[Candidate]) -> Option<Choice> {
    if info.tuned.is_empty() {
        return None;
    }
    let pick = info.tuned.pick(&key(problem)?)?;
    let kernel = all.iter().find(|c| c.kernel.name == pick.kernel && c.verdict.is_ok())?.kernel;
    Some(Choice { kernel, cost_us: pick.median_us })
}

/// The kernel that takes the problem: the one asked for, else the one measured fastest, else the cheapest by prediction.
pub fn choose(info: &DeviceInfo, problem: &Problem, wanted: Option<&str>) -> Result<Choice, NoKernel> {
    let all = candidates(info, problem, wanted);
    if let Some(measured) = measured(info, problem, &all) {
        return Ok(measured);
    }
    let best = all.iter().filter_map(|c| Some((c.kernel, *c.verdict.as_ref().ok()?))).min_by(|a, b| a.1.total_cmp(&b.1));
    match best {
        Some((kernel, cost_us)) => Ok(Choice { kernel, cost_us }),
        None => Err(NoKernel(all)),
    }
}
