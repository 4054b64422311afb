//! Weights stored with 16 bits, as many as the answers allow.

use super::Sample;
use super::taps::run;
use crate::base::{DType, Tensor};
use crate::calibrate::compare::Difference;
use crate::error::Result;
use crate::graph::Graph;
use crate::pass::half::{Halved, halve};
use crate::session::{Model, Options, Session};

/// What [`halve_within`] found.
#[derive(Debug, Clone)]
pub struct Within {
    /// The graph with 16-bit weights.
    pub graph: Graph,
    /// What became of them.
    pub weights: Halved,
    /// The largest difference of an output over its largest magnitude.
    pub error: f64,
    /// The same with every weight that fits stored with 16 bits.
    pub error_of_all: f64,
}

/// Stores as many bytes of constants as `dtype` (f16 or bf16) as keep every output of every sample within `tolerance` of its largest magnitude.
///
/// All of them where that holds. Else each is tried alone, and those that move the answers least for the bytes they save are taken, as many
/// as hold together. `step` is told before each try how many there were and how many there will be.
pub fn halve_within(
    model: &Model,
    dtype: DType,
    samples: &[Sample],
    tolerance: f64,
    options: &Options,
    step: &mut dyn FnMut(usize, usize),
) -> Result<Within> {
    let reference = answers(model, samples, options)?;
    let mut tries = 0;
    let mut attempt = |total: usize, allowed: &dyn Fn(&str) -> bool| -> Result<Within> {
        step(tries, total);
        tries += 1;
        let mut graph = model.graph().clone();
        let weights = halve(&mut graph, dtype, allowed);
        let changed = Model::from_graph(graph);
        let error = largest(&reference, &answers(&changed, samples, options)?);
        Ok(Within { graph: changed.graph().clone(), weights, error, error_of_all: error })
    };
    let mut best = attempt(1, &|_| true)?;
    let error_of_all = best.error;
    if error_of_all <= tolerance {
        return Ok(best);
    }
    let names = best.weights.converted;
    let total = names.len() + 2 + names.len().max(1).ilog2() as usize;
    let mut costs = Vec::with_capacity(names.len());
    for name in &names {
        let alone = attempt(total, &|n| n == name)?;
        let saved = alone.weights.bytes_before - alone.weights.bytes_after;
        costs.push((alone.error / saved as f64, name));
    }
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    best = attempt(total, &|_| false)?;
    let (mut holds, mut fails) = (0, costs.len());
    while fails - holds > 1 {
        let middle = (holds + fails) / 2;
        let some = attempt(total, &|n| costs[..middle].iter().any(|(_, name)| *name == n))?;
        if some.error <= tolerance {
            (holds, best) = (middle, some);
        } else {
            fails = middle;
        }
    }
    Ok(Within { error_of_all, ..best })
}

/// The outputs of each sample, one after the other.
fn answers(model: &Model, samples: &[Sample], options: &Options) -> Result<Vec<Vec<Tensor>>> {
    let session = Session::new(model, options.clone())?;
    samples.iter().map(|s| run(&session, s)).collect()
}

fn largest(reference: &[Vec<Tensor>], changed: &[Vec<Tensor>]) -> f64 {
    let pairs = reference.iter().flatten().zip(changed.iter().flatten());
    let each = pairs.map(|(a, b)| {
        let mut difference = Difference::default();
        difference.add(&a.to_f64(), &b.to_f64(), 0);
        if a.shape() == b.shape() { difference.max_relative() } else { f64::INFINITY }
    });
    each.fold(0.0, f64::max)
}
