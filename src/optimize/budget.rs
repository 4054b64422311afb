//! As many quantised layers as a budget of wrong answers allows.

use super::taps::run;
use super::{Calibrated, Samples};
use crate::base::Tensor;
use crate::calibrate::Paired;
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::optimize::quantize::Quantized;
use crate::session::{Model, Options, Session};

/// Samples of one run where they can be joined.
const BATCH: usize = 16;
/// Samples at most that a layer's own error is measured on.
const SENSITIVITY_SAMPLES: usize = 64;

/// Questions with their answers.
#[derive(Debug, Clone)]
pub struct Questions {
    /// Inputs.
    pub samples: Samples,
    /// The right class of each; without them what the unchanged model says is right.
    pub labels: Option<Vec<i64>>,
}

/// A layer's own error.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Sensitivity {
    /// The node's name.
    pub layer: String,
    /// Signal to noise of the model's first output with this layer alone quantised, in dB.
    pub sqnr_db: f64,
}

/// A choice of layers that was tried.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Attempt {
    /// How many of the most sensitive layers stayed in floats.
    pub kept: usize,
    /// Answers before and after.
    pub answers: Paired,
    /// 95 % confidence interval of the drop.
    pub interval95: [f64; 2],
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The model with as few layers in floats as were found to be enough.
    pub quantized: Quantized,
    /// Layers by their own error, the largest first; empty when all layers could be quantised at once.
    pub sensitivities: Vec<Sensitivity>,
    /// In order.
    pub attempts: Vec<Attempt>,
    /// Which attempt the model is.
    pub chosen: usize,
    /// Whether the interval shows that the drop is within the budget.
    pub is_within: bool,
}

/// Quantises all layers; where the drop of right answers is not shown to be within `budget` (a share: 0.01 is a point of accuracy), keeps
/// the layers with the largest errors of their own in floats, as few as are found to suffice by bisection. `step` is told tries done and all.
pub fn within_budget(
    original: &Model,
    calibrated: &Calibrated,
    questions: &Questions,
    budget: f64,
    step: &mut dyn FnMut(usize, usize),
) -> Result<Found> {
    let before = answers(original.graph(), &questions.samples)?;
    let right = match &questions.labels {
        Some(labels) if labels.len() != before.len() => {
            return Err(Error::BadInput(format!("{} labels for {} answers", labels.len(), before.len())));
        }
        Some(labels) => labels.clone(),
        None => before.clone(),
    };
    let attempt = |kept: &[String]| -> Result<(Attempt, Quantized)> {
        let quantized = calibrated.quantized(kept)?;
        let after = answers(&quantized.graph, &questions.samples)?;
        let mut paired = Paired::default();
        right.iter().zip(before.iter().zip(&after)).for_each(|(right, (a, b))| paired.add(a == right, b == right));
        Ok((Attempt { kept: kept.len(), answers: paired, interval95: paired.interval95() }, quantized))
    };
    let holds = |a: &Attempt| a.interval95[1] <= budget;
    let (first, all) = attempt(&[])?;
    step(1, 1);
    if holds(&first) {
        return Ok(Found { quantized: all, sensitivities: Vec::new(), attempts: vec![first], chosen: 0, is_within: true });
    }
    let sensitivities = sensitivities(original, calibrated, &questions.samples, step)?;
    let order: Vec<String> = sensitivities.iter().map(|s| s.layer.clone()).collect();
    let mut attempts = vec![first];
    let mut best = None;
    // So many are too few; so many are enough, one more than all while none was found.
    let (mut fails, mut enough) = (0, order.len() + 1);
    while enough - fails > 1 {
        let kept = (fails + enough) / 2;
        let (tried, quantized) = attempt(&order[..kept])?;
        let held = holds(&tried);
        attempts.push(tried);
        if held {
            (enough, best) = (kept, Some((attempts.len() - 1, quantized)));
        } else {
            fails = kept;
        }
    }
    let is_within = best.is_some();
    let (chosen, quantized) = match best {
        Some(best) => best,
        None => (attempts.len() - 1, attempt(&order)?.1),
    };
    Ok(Found { quantized, sensitivities, attempts, chosen, is_within })
}

/// The class of each row of the first output.
fn answers(graph: &Graph, samples: &Samples) -> Result<Vec<i64>> {
    let session = Session::new(&Model::from_graph(graph.clone()), Options::default())?;
    let mut all = Vec::new();
    for sample in samples.batches(BATCH) {
        let out = first(run(&session, &sample?)?)?;
        let width = out.shape().last().copied().unwrap_or(1).max(1);
        let top = |row: &[f64]| {
            row.iter().enumerate().fold((0, f64::NEG_INFINITY), |m, (i, &v)| if v > m.1 { (i, v) } else { m }).0 as i64
        };
        all.extend(out.to_f64().chunks_exact(width).map(top));
    }
    Ok(all)
}

fn first(outputs: Vec<Tensor>) -> Result<Tensor> {
    outputs.into_iter().next().ok_or_else(|| Error::BadInput("a model without outputs".into()))
}

/// Each quantised layer's error alone, the largest first.
fn sensitivities(
    original: &Model,
    calibrated: &Calibrated,
    samples: &Samples,
    step: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Sensitivity>> {
    let samples = samples.clone().first(SENSITIVITY_SAMPLES);
    let outputs = |graph: &Graph| -> Result<Vec<Tensor>> {
        let session = Session::new(&Model::from_graph(graph.clone()), Options::default())?;
        samples.batches(BATCH).map(|s| first(run(&session, &s?)?)).collect()
    };
    let exact = outputs(original.graph())?;
    let whole = calibrated.quantized(&[])?;
    let quantised: Vec<String> = whole.layers.iter().filter(|l| l.scheme.is_some()).map(|l| l.name.clone()).collect();
    let mut found = Vec::with_capacity(quantised.len());
    for (done, layer) in quantised.iter().enumerate() {
        let others: Vec<String> = quantised.iter().filter(|n| *n != layer).cloned().collect();
        let mut difference = Difference::default();
        for (a, b) in exact.iter().zip(outputs(&calibrated.quantized(&others)?.graph)?) {
            difference.add(&a.to_f64(), &b.to_f64(), 0);
        }
        found.push(Sensitivity { layer: layer.clone(), sqnr_db: difference.sqnr_db() });
        step(done + 1, quantised.len());
    }
    found.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    Ok(found)
}
