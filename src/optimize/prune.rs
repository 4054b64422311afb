//! Pruning of weights, layer after layer, by what goes into each on the calibration's samples.

use super::samples::Samples;
use super::stream::Stream;
use crate::base::{Shape, Tensor, size_text};
use crate::calibrate::gram::{Gram, add_windows};
use crate::calibrate::reconstruct::{self, Curvature, Sparsity};
use crate::error::{Error, Result};
use crate::graph::problem::Window;
use crate::graph::{Graph, Lower, NodeId, Operand, Problem, Refusal, Site, Type, ValueId};
use crate::pass::layer::{Layer, Refused, layers};
use crate::session::{Model, Options};

/// How to prune.
#[derive(Debug, Clone)]
pub struct Pruning {
    /// Which weights become zero, in each layer by itself.
    pub sparsity: Sparsity,
    /// The smallest ones, the others staying as they are; no samples are run but for the report.
    pub magnitude: bool,
    /// Times through the model, with shares that grow to the one asked for and inputs that are measured again.
    pub steps: usize,
    /// Also the first and the last layer.
    pub ends: bool,
    /// Layers whose name contains one of these stay.
    pub keep: Vec<String>,
    /// Samples of one run.
    pub batch: usize,
    /// How the model is run.
    pub options: Options,
}

impl Default for Pruning {
    fn default() -> Self {
        let (sparsity, options) = (Sparsity::Share(0.5), Options::default());
        Pruning { sparsity, magnitude: false, steps: 1, ends: false, keep: Vec::new(), batch: 32, options }
    }
}

impl Pruning {
    /// Samples at the model's inputs.
    pub(super) fn stream<'a>(&'a self, model: &'a Model, samples: &'a Samples) -> Stream<'a> {
        Stream::new(model, samples, self.batch, &self.options)
    }
}

/// What became of a layer.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Pruned {
    /// Of its first node.
    pub layer: String,
    /// Operator.
    pub op: String,
    /// Weights.
    pub weights: usize,
    /// The share of them that is zero.
    pub zeros: f64,
    /// The error of its outputs on the calibration's inputs, relative to the outputs.
    pub relative_error: f64,
}

/// A pruned model, and what was done to it.
pub struct PrunedModel {
    /// The model.
    pub model: Model,
    /// Its layers in order.
    pub layers: Vec<Pruned>,
    /// What looks like a layer and was left alone, and why.
    pub refused: Vec<Refused>,
}

/// The shares of the steps up to `share`: fast at first, slower towards the end (Zhu and Gupta, "To prune, or not to prune", 2017).
pub fn schedule(share: f64, steps: usize) -> impl Iterator<Item = f64> {
    (1..=steps.max(1)).map(move |i| share * (1.0 - (1.0 - i as f64 / steps.max(1) as f64).powi(3)))
}

/// Prunes the weights of a model's layers in the order in which they run: each is reconstructed on what the pruned layers before it give.
/// At any time the inputs of one layer are summed up, and what goes into it is kept for the next one. `progress` hears of layers done, of how many. Errors when the model cannot run, no
/// layer is left to prune, or a layer's inputs are not finite.
pub fn prune(model: &Model, samples: &Samples, how: &Pruning, mut progress: impl FnMut(usize, usize)) -> Result<PrunedModel> {
    let (chosen, mut refused) = layers(model.graph());
    let chosen = choose(chosen, how, &mut refused);
    if chosen.is_empty() {
        let why: Vec<String> = refused.iter().map(|r| format!("{}: {}", r.node, r.why)).collect();
        return Err(Error::BadInput(format!("no layer to prune: {}", why.join("; "))));
    }
    let sparsities: Vec<Sparsity> = match how.sparsity {
        Sparsity::Share(share) if !how.magnitude => schedule(share, how.steps).map(Sparsity::Share).collect(),
        other => vec![other],
    };
    let (mut graph, total) = (model.graph().clone(), sparsities.len() * chosen.len());
    let mut done = Vec::new();
    for (step, &sparsity) in sparsities.iter().enumerate() {
        done.clear();
        let mut stream = how.stream(model, samples);
        for (i, layer) in chosen.iter().enumerate() {
            stream.forward(&graph, layer.nodes[0])?;
            let grams = grams(&stream, &graph, layer)?;
            let (old, mut new) = (layer.weights(model.graph())?, layer.weights(&graph)?);
            let part = old.len() / layer.groups;
            for ((new, old), gram) in new.chunks_exact_mut(part).zip(old.chunks_exact(part)).zip(&grams) {
                match how.magnitude {
                    true => reconstruct::prune_by_magnitude(new, layer.k, sparsity),
                    false => reconstruct::prune(new, old, &Curvature::new(gram)?, sparsity),
                }
            }
            layer.set_weights(&mut graph, &new)?;
            done.push(pruned(layer, &old, &new, &grams));
            progress(step * chosen.len() + i + 1, total);
        }
    }
    Ok(PrunedModel { model: model.with_graph(graph), layers: done, refused })
}

/// Leaves out the first and the last layer, depthwise convolutions, and those to be kept.
pub(super) fn choose(mut all: Vec<Layer>, how: &Pruning, refused: &mut Vec<Refused>) -> Vec<Layer> {
    let mut refuse = |layer: &Layer, why: &str| refused.push(Refused { node: layer.name.clone(), why: why.into() });
    if !how.ends && all.len() > 2 {
        let last = all.pop();
        for end in [all.remove(0)].iter().chain(&last) {
            refuse(end, "the first or the last layer");
        }
    }
    all.retain(|layer| {
        let why = match layer {
            l if how.keep.iter().any(|text| l.name.contains(text)) => "kept as asked for",
            l if l.groups > 1 && l.groups == l.rows => "a depthwise convolution, of few weights that all matter",
            _ => return true,
        };
        refuse(layer, why);
        false
    });
    all
}

fn pruned(layer: &Layer, before: &[f32], after: &[f32], grams: &[Gram]) -> Pruned {
    let part = before.len() / layer.groups;
    let square = |(i, gram): (usize, &Gram)| {
        let of = |w: &[f32]| -> Vec<f64> { w[i * part..][..part].iter().map(|&w| f64::from(w)).collect() };
        let difference: Vec<f64> = of(before).iter().zip(of(after)).map(|(a, b)| a - b).collect();
        [reconstruct::energy(&difference, gram), reconstruct::energy(&of(before), gram)]
    };
    let sums = grams.iter().enumerate().map(square).fold([0.0; 2], |sum, part| [sum[0] + part[0], sum[1] + part[1]]);
    Pruned {
        layer: layer.name.clone(),
        op: layer.op.clone(),
        weights: after.len(),
        zeros: after.iter().filter(|w| **w == 0.0).count() as f64 / after.len() as f64,
        relative_error: if sums[1] > 0.0 { (sums[0] / sums[1]).sqrt() } else { 0.0 },
    }
}

/// What goes into a layer of `graph`; a Gram matrix for each of its groups.
pub(super) fn grams(stream: &Stream, graph: &Graph, layer: &Layer) -> Result<Vec<Gram>> {
    let mut grams = Gram::all(layer.k, layer.groups).ok_or_else(|| {
        let bytes = size_text(8 * (layer.k as u64).saturating_pow(2).saturating_mul(layer.groups as u64));
        Error::BadInput(format!(
            "layer {:?} reads {} inputs, whose Gram matrix takes {bytes} and more: leave it out (--keep)",
            layer.name, layer.k
        ))
    })?;
    stream.each(graph, &layer.inputs(graph), |inputs| {
        inputs.iter().zip(&layer.nodes).try_for_each(|(x, &node)| add(&mut grams, graph, node, x)).map(|()| true)
    })?;
    if !grams.iter().all(Gram::is_finite) {
        let why =
            "is not finite on the samples, or too large to be squared: look for NaN and infinities, or leave it out (--keep)";
        return Err(Error::BadInput(format!("what goes into layer {:?} {why}", layer.name)));
    }
    Ok(grams)
}

/// Adds what one run gives to a layer's node.
fn add(grams: &mut [Gram], graph: &Graph, node: NodeId, x: &Tensor) -> Result<()> {
    let values = x.values::<f32>()?;
    let Some(window) = window(graph, node, x)? else {
        grams[0].add(&values);
        return Ok(());
    };
    let image = x.shape()[1..].iter().product::<usize>().max(1);
    values.chunks_exact(image).for_each(|image| add_windows(grams, image, &window));
    Ok(())
}

/// The window that a convolution moves over `x`; `None` of other operators.
pub(super) fn window(graph: &Graph, node: NodeId, x: &Tensor) -> Result<Option<Window>> {
    let node = &graph.nodes[node];
    let (Some(def), "Conv") = (node.def, node.op.as_str()) else { return Ok(None) };
    let ty = |t: &Tensor| Type { dtype: t.dtype(), shape: Shape::clone(t.shape()) };
    let constant = |v: &Option<ValueId>| v.and_then(|v| graph.constant(v)).map(|t| Operand { ty: ty(t), value: None });
    let mut inputs: Vec<Option<Operand>> = node.inputs.iter().map(constant).collect();
    inputs[0] = Some(Operand { ty: ty(x), value: None });
    let site = Site { node, inputs: &inputs };
    let out = (def.infer)(&site).map_err(|refusal| match refusal {
        Refusal::Error(e) => e,
        Refusal::NeedsValue(i) => site.error(format!("the shape depends on input {i}")),
    })?;
    let Lower::Family(lower) = def.lower else { return Ok(None) };
    Ok(match lower(&site, &out)? {
        Problem::Conv(conv) => Some(conv.window),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_to_the_one_asked_for() {
        let all: Vec<f64> = schedule(0.8, 4).collect();
        assert!(all.windows(2).all(|w| w[0] < w[1]) && all[0] > 0.4 && (all[3] - 0.8).abs() < 1e-12, "{all:?}");
        assert_eq!(schedule(0.5, 0).collect::<Vec<_>>(), [0.5]);
    }
}
