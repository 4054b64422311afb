//! What quantisation asks of samples: ranges, means, and the largest values of channels.

use std::collections::BTreeMap;

use super::{QuantizeOptions, Sample, Samples, Taps};
use crate::base::{Shape, Tensor, quant};
use crate::calibrate::{Observed, range};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::pass::quantize::{Affine, Kind, Layer, Stored, factors, layers, smooth};
use crate::session::{Model, Options};

/// Samples of one run where they can be joined.
const BATCH: usize = 16;

/// The model with the inputs of its products smoothed by their largest values over the samples.
pub(super) fn smoothed(
    model: &Model,
    options: &QuantizeOptions,
    strength: f32,
    samples: &Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Model> {
    let graph = model.graph();
    let all = layers(graph);
    let mut by_input: BTreeMap<ValueId, Vec<&Layer>> = BTreeMap::new();
    let products = || all.iter().filter(|l| l.kind.is_product() && !options.keep.contains(&l.name));
    // Weights that several inputs meet would need a copy for each.
    let own = |layer: &&Layer| products().all(|l| l.weight != layer.weight || l.input == layer.input);
    for layer in products().filter(own) {
        by_input.entry(layer.input).or_default().push(layer);
    }
    let inputs: Vec<ValueId> = by_input.keys().copied().collect();
    let taps = Taps::new(model, &inputs, Options::default())?;
    let mut largest: Vec<Vec<f32>> = vec![Vec::new(); inputs.len()];
    let runs = samples.batches(BATCH);
    let count = runs.len();
    for (done, sample) in runs.enumerate() {
        for (largest, t) in largest.iter_mut().zip(taps.run(&sample?)?) {
            let channels = t.shape().last().copied().unwrap_or(1);
            largest.resize(channels, 0.0);
            for row in t.values::<f32>()?.chunks_exact(channels.max(1)) {
                largest.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(v.abs()));
            }
        }
        progress(done + 1, count);
    }
    let found =
        inputs.iter().zip(&largest).filter_map(|(input, l)| Some((*input, factors(graph, &by_input[input], l, strength)?)));
    let chosen: Vec<Layer> = by_input.values().flatten().map(|l| (*l).clone()).collect();
    Ok(Model::from_graph(smooth(graph, &chosen, &found.collect())?))
}

/// What is known of a layer's input.
pub(super) struct Measured {
    /// Scale and zero point.
    pub affine: Affine,
    /// Mean of each channel, before and after rounding.
    means: Vec<(f64, f64)>,
}

/// Scale and zero point that cover a range.
fn affine((low, high): (f32, f32)) -> Affine {
    let scale = (high - low) / 255.0;
    if scale.is_nan() || scale <= 0.0 || !scale.is_finite() {
        return Affine { scale: 1.0, zero: 0 };
    }
    Affine { scale, zero: (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i8 }
}

/// Ranges, then means, of the layers' inputs over all samples.
pub(super) fn measure(
    model: &Model,
    layers: &[&Layer],
    samples: &Samples,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<ValueId, Measured>> {
    let mut kinds: BTreeMap<ValueId, Kind> = BTreeMap::new();
    kinds.extend(layers.iter().map(|l| (l.input, l.kind)));
    let values: Vec<ValueId> = kinds.keys().copied().collect();
    let taps = Taps::new(model, &values, Options::default())?;
    let runs = samples.batches(BATCH).len();
    let rounds = if options.correct_biases { 2 } else { 1 };
    let mut done = 0;
    let mut each_run = |see: &mut dyn FnMut(usize, &Tensor) -> Result<()>| -> Result<()> {
        for sample in samples.batches(BATCH) {
            let sample: Sample = sample?;
            taps.run(&sample)?.iter().enumerate().try_for_each(|(i, t)| see(i, t))?;
            done += 1;
            progress(done, rounds * runs);
        }
        Ok(())
    };
    let mut seen = vec![Observed::default(); values.len()];
    each_run(&mut |i, t| {
        seen[i].add(&t.values::<f32>()?);
        Ok(())
    })?;
    let affines: Vec<Affine> = seen.iter().map(|s| affine(range(s, options.calibrator))).collect();
    let mut sums: Vec<Vec<(f64, f64, f64)>> = vec![Vec::new(); values.len()];
    if options.correct_biases {
        each_run(&mut |i, t| {
            let axis = if kinds[&values[i]] == Kind::Conv { 1 } else { t.shape().rank().saturating_sub(1) };
            add_means(&mut sums[i], t, axis, affines[i])
        })?;
    }
    let mean = |s: &Vec<(f64, f64, f64)>| s.iter().map(|(x, q, n)| (x / n.max(1.0), q / n.max(1.0))).collect();
    let all = values.iter().zip(affines).zip(&sums);
    Ok(all.map(|((&value, affine), sums)| (value, Measured { affine, means: mean(sums) })).collect())
}

/// Adds to each channel's sum of values, of rounded values, and their number.
fn add_means(sums: &mut Vec<(f64, f64, f64)>, t: &Tensor, axis: usize, affine: Affine) -> Result<()> {
    let (values, shape) = (t.values::<f32>()?, t.shape());
    let channels = shape.get(axis).copied().unwrap_or(1);
    let inner: usize = shape.iter().skip(axis + 1).product();
    sums.resize(channels, (0.0, 0.0, 0.0));
    for (i, part) in values.chunks(inner.max(1)).enumerate() {
        let sum = &mut sums[i % channels.max(1)];
        for &v in part {
            let q = quant::quantize(v, affine.scale, affine.zero.into(), -128, 127);
            sum.0 += f64::from(v);
            sum.1 += f64::from(affine.scale) * f64::from(q - i32::from(affine.zero));
        }
        sum.2 += part.len() as f64;
    }
    Ok(())
}

/// Adds to the layer's bias what its weights and inputs, rounded, lack on average. Layers without room for a bias stay.
pub(super) fn correct_bias(
    graph: &mut Graph,
    layer: &Layer,
    weights: &Tensor,
    stored: &Stored,
    measured: &Measured,
) -> Result<()> {
    let node = &graph.nodes[layer.node];
    if !matches!(node.op.as_str(), "Conv" | "Gemm") || measured.means.is_empty() {
        return Ok(());
    }
    let channels = stored.scales.numel();
    let given = node.inputs.get(2).copied().flatten();
    let bias = match given.map(|v| graph.constant(v)) {
        Some(Some(t)) if t.numel() == channels => t.values::<f32>()?.into_owned(),
        None => vec![0.0; channels],
        _ => return Ok(()),
    };
    let rounded = stored.dequantised(layer.kind)?;
    let exact = by_channel(layer.kind == Kind::Product, weights, channels)?;
    let rounded = by_channel(layer.kind.is_product(), &rounded, channels)?;
    // Weights of a channel: of a convolution, those of its group's input channels with all their taps.
    let group =
        if layer.kind == Kind::Conv { channels / (measured.means.len() / weights.shape()[1].max(1)).max(1) } else { channels };
    let taps: usize = if layer.kind == Kind::Conv { weights.shape()[2..].iter().product() } else { 1 };
    let lacking = |m: usize| -> f64 {
        let first = if layer.kind == Kind::Conv { m / group.max(1) * weights.shape()[1] } else { 0 };
        let each = exact[m].iter().zip(&rounded[m]).enumerate();
        each.map(|(i, (w, q))| {
            let (x, xq) = measured.means.get(first + i / taps.max(1)).copied().unwrap_or_default();
            f64::from(*w) * x - f64::from(*q) * xq
        })
        .sum()
    };
    let moved: Vec<f32> = bias.iter().enumerate().map(|(m, b)| (f64::from(*b) + lacking(m)) as f32).collect();
    let name = format!("{}/corrected_bias", layer.name);
    let value = graph.add_value(name, Some(Tensor::new(Shape::from([channels]), &moved)?));
    let inputs = &mut graph.nodes[layer.node].inputs;
    inputs.resize(3, None);
    inputs[2] = Some(value);
    Ok(())
}

/// The weights of each output channel, which are columns or rows.
pub(super) fn by_channel(columns: bool, weights: &Tensor, channels: usize) -> Result<Vec<Vec<f32>>> {
    let values = weights.values::<f32>()?;
    let each = values.len() / channels.max(1);
    let row = |m: usize| {
        if columns {
            values.iter().skip(m).step_by(channels).copied().collect()
        } else {
            values[m * each..(m + 1) * each].to_vec()
        }
    };
    Ok((0..channels).map(row).collect())
}
