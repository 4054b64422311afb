//! Measuring which kernel is fastest for each problem of a model. Requests never wait for it: it runs when it is asked for, and sessions
//! made afterwards use what it found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::{Tensor, TensorView};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::hardware::tuned::{Pick, Tuned};
use crate::kernel::{Candidate, KernelDef, candidates, choose, tune::key};
use crate::plan::Trial;
use crate::session::devices::{Sharing, found, kept_in};
use crate::session::inputs::arrange;
use crate::session::rung::Rung;
use crate::session::{Model, Options};

/// Kernels predicted slower than the chosen one by this factor are not tried.
const HOPELESS: f64 = 16.0;
/// Of the largest result: how far floats of another kernel may be off, so that a kernel which is wrong on this device is never chosen.
const TOLERANCE: f64 = 0.02;

/// What tuning found for one kind of problem.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Finding {
    /// See [`crate::kernel::tune::key`].
    pub problem: String,
    /// The kernel that was chosen before.
    pub before: &'static str,
    /// Its time.
    pub before_us: f64,
    /// The fastest.
    pub kernel: &'static str,
    /// Its time.
    pub median_us: f64,
    /// Kernels that failed, or gave something else than the one before, and how.
    pub refused: Vec<(&'static str, String)>,
}

/// What tuning found.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Tuning {
    /// For each kind of problem that more than one kernel takes.
    pub findings: Vec<Finding>,
    /// Kinds that the budget left no time for.
    pub left: usize,
    /// Where they are kept; `None` when they are not.
    pub file: Option<std::path::PathBuf>,
}

/// Measures the kernels of the device that `options` choose first, for the problems of a run on these inputs, and keeps what it finds
/// in [`Options::cache_dir`]. Candidates run on a device of their own, which a bad one may take down. `go_on` is told how many
/// kinds of problem are done, of how many, and may end it. Errors when the device cannot be tuned or the model does not run on it.
pub fn tune(
    model: &Model,
    options: &Options,
    inputs: &[(&str, TensorView)],
    budget: Duration,
    go_on: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Tuning> {
    let began = Instant::now();
    let open = || -> Result<Arc<dyn Device>> {
        let (found, _) = found(options, Sharing::Alone)?;
        found.first().map(|(opened, _)| opened.device.clone()).ok_or_else(|| nothing("no device"))
    };
    let mut device = open()?;
    let identity = device.info().identity.clone();
    if identity.is_empty() {
        return Err(nothing("kernels of the CPU are chosen by calibrated costs; tune a GPU (--device cuda or wgpu)"));
    }
    let trials = trials(model.graph(), device.clone(), options, inputs)?;
    let file = kept_in(options, &identity);
    let mut known = file.as_deref().map_or_else(Tuned::default, |f| Tuned::read(f, &identity));
    let mut tuning = Tuning { file: file.clone(), ..Tuning::default() };
    for (done, (key, trial)) in trials.iter().enumerate() {
        if began.elapsed() > budget || !go_on(done, trials.len()) {
            tuning.left = trials.len() - done;
            break;
        }
        let Some(finding) = measure(&mut device, &open, key, trial)? else { continue };
        known.keep(key.clone(), Pick { kernel: finding.kernel.into(), median_us: finding.median_us });
        tuning.findings.push(finding);
        // Each by itself, so that an interruption loses nothing.
        if let Some(file) = &file {
            let why = |e: std::io::Error| Error::File { path: file.display().to_string(), why: e.to_string() };
            known.write(file, &identity).map_err(why)?;
        }
    }
    Ok(tuning)
}

fn nothing(why: &str) -> Error {
    Error::Unsupported { at: "tune".into(), why: why.into() }
}

/// The problems of a run, each kind once, by its key.
fn trials(
    graph: &Graph,
    device: Arc<dyn Device>,
    options: &Options,
    inputs: &[(&str, TensorView)],
) -> Result<Vec<(String, Trial)>> {
    let rung = Rung::measured(graph, device, options.precision, options);
    let mut copies = Vec::new();
    let run = rung.run(&arrange(graph, inputs, &mut copies)?, false)?;
    let mut seen = BTreeSet::new();
    let all = run.plans.iter().flat_map(|(plan, _)| plan.trials.iter());
    Ok(all.filter_map(|t| Some((key(&t.problem)?, t.clone()))).filter(|(key, _)| seen.insert(key.clone())).collect())
}

/// Runs every kernel that takes the problem; `None` when there is but one, or the chosen one fails.
fn measure(
    device: &mut Arc<dyn Device>,
    open: &dyn Fn() -> Result<Arc<dyn Device>>,
    key: &str,
    trial: &Trial,
) -> Result<Option<Finding>> {
    let info = device.info().clone();
    let Ok(before) = choose(&info, &trial.problem, None) else { return Ok(None) };
    let takes = |c: Candidate| c.verdict.ok().map(|us| (c.kernel, us));
    let others: Vec<(&'static KernelDef, f64)> = candidates(&info, &trial.problem, None).into_iter().filter_map(takes).collect();
    let least_us = others.iter().map(|c| c.1).fold(f64::INFINITY, f64::min);
    let others: Vec<_> = others.into_iter().filter(|c| c.1 <= least_us * HOPELESS && c.0.name != before.kernel.name).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let Ok(first) = trial.run(&**device, before.kernel) else { return Ok(None) };
    let mut finding = Finding {
        problem: key.into(),
        before: before.kernel.name,
        before_us: first.median_us,
        kernel: before.kernel.name,
        median_us: first.median_us,
        refused: Vec::new(),
    };
    for (kernel, _) in others {
        match trial.run(&**device, kernel) {
            Ok(answer) => match differs(&first.outputs, &answer.outputs) {
                Some(how) => finding.refused.push((kernel.name, how)),
                None if answer.median_us < finding.median_us => {
                    (finding.kernel, finding.median_us) = (kernel.name, answer.median_us)
                }
                None => {}
            },
            Err(e) => {
                finding.refused.push((kernel.name, e.to_string()));
                // The failure may have taken the device with it.
                *device = open()?;
            }
        }
    }
    Ok(Some(finding))
}

/// How another kernel's outputs differ by more than rounding, if they do.
fn differs(expected: &[Tensor], got: &[Tensor]) -> Option<String> {
    expected.iter().zip(got).enumerate().find_map(|(i, (a, b))| {
        let is_float = a.dtype().is_float();
        let (a, b) = (a.to_f64(), b.to_f64());
        let largest = a.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
        let allowed = if is_float { largest * TOLERANCE } else { 0.0 };
        let far = |(x, y): (&f64, &f64)| !(x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= allowed);
        let wrong = a.iter().zip(&b).filter(|&p| far(p)).count();
        (wrong > 0).then(|| format!("{wrong} of {} elements of output {i} differ", a.len()))
    })
}
