//! Biases of a quantised model, moved until each layer gives on average what it gave before.

use super::Samples;
use super::stream::Stream;
use crate::base::Tensor;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::pass::layer::{Kind, Layer};
use crate::pass::quantize::{Scheme, Stored, quantize};
use crate::session::{Model, Options};

/// Samples at most that means are taken over, all of one run where they can be joined.
const SAMPLES: usize = 16;

/// Whether and how biases of Conv and Gemm make up for the mean error that rounding leaves in their outputs (Nagel et al., "Data-Free
/// Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2, with means measured).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Biases {
    /// They stay.
    Keep,
    /// Each for the error that its layer makes of exact inputs.
    Alone,
    /// Layer after layer, each for the error of its output when it and all before it are rounded.
    #[default]
    InOrder,
}

/// A bias that a layer has for itself, and what it moves.
struct Place {
    bias: ValueId,
    output: ValueId,
    /// Where the channels are; `None`: the last axis.
    axis: Option<usize>,
}

/// A layer, what it becomes, and its weights as integers.
pub(super) type Rounded = (Layer, Scheme, Stored);

/// The bias of each layer, corrected when these layers are all rounded; `None` where it stays, also of layers of several nodes, without room
/// for a bias, or whose rows are quantised while running.
pub(super) fn corrected(
    model: &Model,
    layers: &[Rounded],
    how: Biases,
    samples: &Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Option<Tensor>>> {
    let mut biases = vec![None; layers.len()];
    if how == Biases::Keep {
        return Ok(biases);
    }
    let mut graph = model.graph().clone();
    let samples = samples.clone().first(SAMPLES);
    let places: Vec<(usize, Place)> =
        layers.iter().enumerate().filter_map(|(at, layer)| Some((at, place(&mut graph, layer)?))).collect();
    if places.is_empty() {
        return Ok(biases);
    }
    let options = Options::default();
    let stream = || Stream::new(model, &samples, SAMPLES, &options);
    let all: Vec<&Place> = places.iter().map(|(_, place)| place).collect();
    let exact = means(&stream(), model.graph(), &all)?;
    let (mut stream, mut settled) = (stream(), 0);
    for (done, ((at, place), exact)) in places.iter().zip(&exact).enumerate() {
        let rounded = if how == Biases::Alone { std::slice::from_ref(&layers[*at]) } else { layers };
        let quantized = quantize(&graph, rounded)?;
        stream.forward(&quantized, settled)?;
        let own = means(&stream, &quantized, &[place])?;
        // Up to here nothing changes any more; what is rounded alone is exact for the next one.
        settled = behind(if how == Biases::Alone { &graph } else { &quantized }, place.output);
        if let Some(bias) = graph.constant(place.bias) {
            let each = bias.values::<f32>()?.into_owned().into_iter().zip(exact.iter().zip(own.iter().flatten()));
            let bias = Tensor::vector(&each.map(|(b, (exact, own))| moved(b, exact - own)).collect::<Vec<f32>>());
            if how == Biases::InOrder {
                graph.values[place.bias.0].constant = Some(bias.clone());
            }
            biases[*at] = Some(bias);
        }
        progress(done + 1, places.len());
    }
    Ok(biases)
}

/// Gives a layer of `graph`, which is not rewritten yet, its bias.
pub(super) fn put(graph: &mut Graph, layer: &Rounded, bias: &Tensor) {
    if let Some(place) = place(graph, layer) {
        graph.values[place.bias.0].constant = Some(bias.clone());
    }
}

/// As it was where the error is no number.
fn moved(bias: f32, by: f64) -> f32 {
    let moved = (f64::from(bias) + by) as f32;
    if moved.is_finite() { moved } else { bias }
}

/// Gives a layer of one node a bias of its own, where there is something to correct: errors of rows that are quantised while running are near
/// zero on average, and means of few rows would add more than they take.
fn place(graph: &mut Graph, (layer, scheme, _): &Rounded) -> Option<Place> {
    if matches!(scheme, Scheme::Rows | Scheme::RowsAsymmetric) {
        return None;
    }
    let [at] = layer.nodes[..] else { return None };
    let node = &graph.nodes[at];
    if !matches!(node.op.as_str(), "Conv" | "Gemm") {
        return None;
    }
    let output = node.outputs.first().copied().flatten()?;
    let given = node.inputs.get(2).copied().flatten();
    let bias = match given.map(|v| graph.constant(v)) {
        Some(Some(t)) if t.numel() == layer.rows => t.values::<f32>().ok()?.into_owned(),
        None => vec![0.0; layer.rows],
        _ => return None,
    };
    let name = format!("{}/corrected_bias", node.name);
    let bias = graph.add_value(name, Some(Tensor::vector(&bias)));
    let inputs = &mut graph.nodes[at].inputs;
    inputs.resize(3, None);
    inputs[2] = Some(bias);
    Some(Place { bias, output, axis: (layer.kind == Kind::Conv).then_some(1) })
}

/// The first node behind the one that makes a value.
fn behind(graph: &Graph, value: ValueId) -> usize {
    graph.nodes.iter().position(|n| n.outputs.contains(&Some(value))).map_or(0, |at| at + 1)
}

/// Means of each place's channels over all samples, in `graph`.
fn means(stream: &Stream, graph: &Graph, places: &[&Place]) -> Result<Vec<Vec<f64>>> {
    let outputs: Vec<ValueId> = places.iter().map(|p| p.output).collect();
    let mut sums: Vec<(Vec<f64>, usize)> = vec![Default::default(); places.len()];
    stream.each(graph, &outputs, |tensors| {
        for (((sums, count), place), t) in sums.iter_mut().zip(places).zip(tensors) {
            let axis = place.axis.unwrap_or(t.shape().rank().saturating_sub(1));
            *count += add_channels(sums, t, axis)?;
        }
        Ok(true)
    })?;
    let mean = |(sums, count): (Vec<f64>, usize)| sums.into_iter().map(|s| s / count.max(1) as f64).collect();
    Ok(sums.into_iter().map(mean).collect())
}

/// Adds to each channel's sum; gives how many values each got.
fn add_channels(sums: &mut Vec<f64>, t: &Tensor, axis: usize) -> Result<usize> {
    let channels = t.shape().get(axis).copied().unwrap_or(1).max(1);
    let inner: usize = t.shape().iter().skip(axis + 1).product();
    sums.resize(channels, 0.0);
    for (i, part) in t.values::<f32>()?.chunks(inner.max(1)).enumerate() {
        sums[i % channels] += part.iter().map(|&v| f64::from(v)).sum::<f64>();
    }
    Ok(t.numel() / channels)
}
