//! Biases of a quantised model, moved until each layer gives on average what it gave before.

use super::{Samples, Taps};
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
    #[default]
    Alone,
    /// Layer after layer, each for the error of its output when it and all before it are rounded.
    InOrder,
}

/// A bias that a layer has for itself, and what it moves.
struct Place {
    bias: ValueId,
    output: ValueId,
    /// Where the channels are; `None`: the last axis.
    axis: Option<usize>,
}

/// Moves the biases of layers in `graph`, which is not rewritten yet, one after the other. `model` is the one without errors. Layers of several
/// nodes, without room for a bias, or whose rows are quantised while running, stay.
pub(super) fn correct(
    model: &Model,
    graph: &mut Graph,
    chosen: &[(Layer, Scheme, Stored)],
    how: Biases,
    samples: &Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let samples = samples.clone().first(SAMPLES);
    // Errors of rows that are quantised while running are near zero on average; means of few rows would add more than they take.
    let has_mean = |scheme: &Scheme| !matches!(scheme, Scheme::Rows | Scheme::RowsAsymmetric);
    let places = chosen.iter().filter(|(_, scheme, _)| how != Biases::Keep && has_mean(scheme));
    let (places, rounded): (Vec<Place>, Vec<_>) = places.filter_map(|each| Some((place(graph, &each.0)?, each))).unzip();
    if places.is_empty() {
        return Ok(());
    }
    let outputs: Vec<ValueId> = places.iter().map(|p| p.output).collect();
    let exact = means(model, &outputs, &places, &samples)?;
    for (done, (place, exact)) in places.iter().zip(&exact).enumerate() {
        let rounded = if how == Biases::Alone { std::slice::from_ref(rounded[done]) } else { chosen };
        let quantized = Model::from_graph(quantize(graph, rounded)?);
        let own = &means(&quantized, &[place.output], std::slice::from_ref(place), &samples)?[0];
        if let Some(bias) = graph.constant(place.bias) {
            let each = bias.values::<f32>()?.into_owned().into_iter().zip(exact.iter().zip(own));
            let moved: Vec<f32> = each.map(|(b, (exact, own))| moved(b, exact - own)).collect();
            graph.values[place.bias.0].constant = Some(Tensor::vector(&moved));
        }
        progress(done + 1, places.len());
    }
    Ok(())
}

/// As it was where the error is no number.
fn moved(bias: f32, by: f64) -> f32 {
    let moved = (f64::from(bias) + by) as f32;
    if moved.is_finite() { moved } else { bias }
}

/// Gives a layer of one node a bias of its own.
fn place(graph: &mut Graph, layer: &Layer) -> Option<Place> {
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

/// Means of each value's channels over all samples.
fn means(model: &Model, values: &[ValueId], places: &[Place], samples: &Samples) -> Result<Vec<Vec<f64>>> {
    let taps = Taps::new(model, values, Options::default())?;
    let mut sums: Vec<(Vec<f64>, usize)> = vec![Default::default(); values.len()];
    for sample in samples.batches(SAMPLES) {
        for (((sums, count), place), t) in sums.iter_mut().zip(places).zip(taps.run(&sample?)?) {
            let axis = place.axis.unwrap_or(t.shape().rank().saturating_sub(1));
            *count += add_channels(sums, &t, axis)?;
        }
    }
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
