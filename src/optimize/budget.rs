//! As many quantised layers as a budget of worse answers allows.

use super::quantize::Quantized;
use super::{Calibrated, Exam};
use crate::base::DType;
use crate::calibrate::Paired;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::pass::half::halve;

/// Samples at most that a layer's own error is measured on.
const SENSITIVITY_SAMPLES: usize = 64;
/// Layers at most that are tried again one by one after the bisection.
const RETRIES: usize = 24;

/// How much worse answers may be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Budget {
    /// Of the mean score, original less changed: 0.01 is a point of accuracy.
    pub drop: f64,
    /// The drop's 95 % interval has to lie within it; else the drop alone.
    pub is_proven: bool,
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
    /// Layers that stayed in floats.
    pub kept: Vec<String>,
    /// How their weights were stored, where they fit.
    pub stored: DType,
    /// Scores before and after.
    pub scores: Paired,
    /// Of the mean score, original less changed.
    pub drop: f64,
    /// Its 95 % confidence interval.
    pub interval95: [f64; 2],
    /// Whether the budget holds.
    pub is_within: bool,
}

impl Attempt {
    /// What an exam says about a graph.
    pub fn new(exam: &Exam, graph: &Graph, kept: Vec<String>, stored: DType, budget: Budget) -> Result<Self> {
        let scores = exam.take(graph)?;
        let (drop, interval95) = (scores.drop(), scores.interval95());
        let most = if budget.is_proven { interval95[1] } else { drop };
        Ok(Attempt { kept, stored, scores, drop, interval95, is_within: most <= budget.drop })
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The model with the fewest layers in floats that were found to be enough; where none were, of the last attempt.
    pub quantized: Quantized,
    /// Layers with 16-bit weights.
    pub halved: Vec<String>,
    /// Layers by their own error, the largest first; empty when all layers could be quantised at once.
    pub sensitivities: Vec<Sensitivity>,
    /// In order.
    pub attempts: Vec<Attempt>,
    /// Which attempt the model is.
    pub chosen: usize,
    /// `step` asked to stop before the end.
    pub is_stopped: bool,
}

/// Told what is being done, how many steps of it are done, and how many there will be at most; false to stop.
pub type Step<'a> = dyn FnMut(&'static str, usize, usize) -> bool + 'a;

/// Quantises all layers; where the budget does not hold in `exam`, keeps the layers with the largest errors of
/// their own in floats: with 16-bit weights, or with 32 bits where that is not enough. As few as bisection finds to suffice; then each of
/// these, from the smallest error on, is quantised again where the budget still holds (greedy, as in NNCF's accuracy control).
pub fn within_budget(calibrated: &Calibrated, exam: &Exam, budget: Budget, step: &mut Step) -> Result<Found> {
    let mut search = Search { calibrated, exam, budget, attempts: Vec::new(), best: None, is_stopped: false };
    step("trying", 0, 1);
    let mut sensitivities = Vec::new();
    if !search.attempt(&[], DType::F16)? {
        sensitivities = search.sensitivities(step)?;
        let order: Vec<String> = sensitivities.iter().map(|s| s.layer.clone()).collect();
        if !search.is_stopped {
            let stored = if search.attempt(&order, DType::F16)? { DType::F16 } else { DType::F32 };
            let kept = search.bisect(&order, stored, step)?;
            search.give_back(&order[..kept], stored, step)?;
        }
    }
    let Search { attempts, best, is_stopped, .. } = search;
    let (chosen, Choice { quantized, halved }) = match (best, attempts.last()) {
        (Some(best), _) => best,
        (None, Some(last)) => (attempts.len() - 1, floats(calibrated, &last.kept, last.stored)?),
        (None, None) => return Err(Error::BadInput("nothing was tried".into())),
    };
    Ok(Found { quantized, halved, sensitivities, attempts, chosen, is_stopped })
}

/// A model with some layers in floats.
pub(super) struct Choice {
    pub quantized: Quantized,
    pub halved: Vec<String>,
}

struct Search<'a> {
    calibrated: &'a Calibrated,
    exam: &'a Exam,
    budget: Budget,
    attempts: Vec<Attempt>,
    /// The last attempt that held.
    best: Option<(usize, Choice)>,
    is_stopped: bool,
}

impl Search<'_> {
    /// Whether the budget holds with these layers kept in floats.
    fn attempt(&mut self, kept: &[String], stored: DType) -> Result<bool> {
        let choice = floats(self.calibrated, kept, stored)?;
        let attempt = Attempt::new(self.exam, &choice.quantized.graph, kept.to_vec(), stored, self.budget)?;
        let holds = attempt.is_within;
        self.attempts.push(attempt);
        if holds {
            self.best = Some((self.attempts.len() - 1, choice));
        }
        Ok(holds)
    }

    /// How many of the first layers have to be kept.
    fn bisect(&mut self, order: &[String], stored: DType, step: &mut Step) -> Result<usize> {
        let (mut fails, mut enough) = (0, order.len());
        let total = enough.max(1).ilog2() as usize + 1;
        for done in 0.. {
            if enough - fails <= 1 || self.stops(step("bisecting", done, total)) {
                break;
            }
            let kept = (fails + enough) / 2;
            if self.attempt(&order[..kept], stored)? { enough = kept } else { fails = kept }
        }
        Ok(enough)
    }

    /// Quantises again what need not be kept alone. The last layer need: without it the bisection failed.
    fn give_back(&mut self, order: &[String], stored: DType, step: &mut Step) -> Result<()> {
        let Some((_, again)) = order.split_last().filter(|_| self.best.is_some()) else { return Ok(()) };
        let mut kept = order.to_vec();
        let again: Vec<&String> = again.iter().rev().take(RETRIES).collect();
        for (done, layer) in again.iter().enumerate() {
            if self.stops(step("giving back", done, again.len())) {
                break;
            }
            let fewer: Vec<String> = kept.iter().filter(|k| k != layer).cloned().collect();
            if self.attempt(&fewer, stored)? {
                kept = fewer;
            }
        }
        Ok(())
    }

    /// Each quantised layer's error alone, the largest first.
    fn sensitivities(&mut self, step: &mut Step) -> Result<Vec<Sensitivity>> {
        let exact = self.exam.outputs(self.exam.original(), SENSITIVITY_SAMPLES)?;
        let whole = self.calibrated.quantized(&[])?;
        let quantised: Vec<String> = whole.layers.iter().filter(|l| l.scheme.is_some()).map(|l| l.name.clone()).collect();
        let mut found = Vec::with_capacity(quantised.len());
        for (done, layer) in quantised.iter().enumerate() {
            if self.stops(step("measuring layers", done, quantised.len())) {
                break;
            }
            let others: Vec<String> = quantised.iter().filter(|n| *n != layer).cloned().collect();
            let alone = self.calibrated.quantized(&others)?;
            let difference = self.exam.difference(&exact, &alone.graph, SENSITIVITY_SAMPLES)?;
            found.push(Sensitivity { layer: layer.clone(), sqnr_db: difference.sqnr_db() });
        }
        found.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        Ok(found)
    }

    fn stops(&mut self, goes_on: bool) -> bool {
        self.is_stopped |= !goes_on;
        self.is_stopped
    }
}

/// The model with some layers in floats, their weights stored as these where they fit.
pub(super) fn floats(calibrated: &Calibrated, kept: &[String], stored: DType) -> Result<Choice> {
    let mut quantized = calibrated.quantized(kept)?;
    if stored == DType::F32 {
        return Ok(Choice { quantized, halved: Vec::new() });
    }
    let graph = &quantized.graph;
    let mut weights: Vec<(String, String)> = Vec::new();
    for node in graph.nodes.iter().filter(|n| kept.contains(&n.name)) {
        let matrices = node.inputs.iter().flatten().filter(|v| graph.constant(**v).is_some_and(|t| t.shape().rank() > 1));
        weights.extend(matrices.map(|v| (graph.values[v.0].name.clone(), node.name.clone())));
    }
    let done = halve(&mut quantized.graph, stored, &|name| weights.iter().any(|(weight, _)| weight == name));
    let halved = weights.into_iter().filter(|(weight, _)| done.converted.contains(weight)).map(|(_, layer)| layer).collect();
    Ok(Choice { quantized, halved })
}
