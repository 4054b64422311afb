//! Quantisation of a model: which layers become what, with ranges and biases from samples.

use std::collections::BTreeMap;

use super::{Sample, Samples, Taps};
use crate::base::{Shape, Tensor};
use crate::calibrate::compare::Difference;
use crate::calibrate::{Calibrator, Observed, range};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::hardware;
use crate::pass::quantize::{Affine, Kind, Layer, Scheme, Stored, factors, layers, quantize as rewrite, round_weights, smooth};
use crate::pass::{standard, upgrade};
use crate::plan::fold;
use crate::session::{Model, Options};

/// Samples of one run of the calibration where they can be joined.
const BATCH: usize = 16;

/// What matrix products become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Products {
    /// Rows quantised while running, by their largest magnitude.
    Rows,
    /// Rows quantised while running, by their range: closer where values are not symmetric.
    #[default]
    RowsAsymmetric,
    /// Inputs quantised by ranges that calibration finds.
    Static,
    /// 8-bit weights, float arithmetic.
    Weights,
    /// As they are.
    Keep,
}

/// What convolutions become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Convolutions {
    /// Images quantised by ranges that calibration finds.
    #[default]
    Static,
    /// 8-bit weights, float arithmetic.
    Weights,
    /// As they are.
    Keep,
}

/// How to quantise.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct QuantizeOptions {
    /// Of MatMul and Gemm with constant weights.
    pub products: Products,
    /// Of Conv.
    pub convolutions: Convolutions,
    /// Rows of embedding tables as 8 bits with a scale each.
    pub tables: bool,
    /// How ranges are chosen.
    pub calibrator: Calibrator,
    /// Move biases by the mean error that rounding leaves (Nagel et al., "Data-Free Quantization", 2019, with measured means).
    pub correct_biases: bool,
    /// Moves large channels of the inputs of products whose rows are quantised into their weights, by this strength (0.5 is even).
    pub smooth: Option<f32>,
    /// Names of nodes that stay as they are.
    pub keep: Vec<String>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        QuantizeOptions {
            products: Products::default(),
            convolutions: Convolutions::default(),
            tables: true,
            calibrator: Calibrator::default(),
            correct_biases: true,
            smooth: None,
            keep: Vec::new(),
        }
    }
}

impl QuantizeOptions {
    /// Whether ranges have to be found for a layer.
    fn is_static(&self, kind: Kind) -> bool {
        match kind {
            Kind::Conv => self.convolutions == Convolutions::Static,
            Kind::Table => false,
            _ => self.products == Products::Static,
        }
    }
}

/// What became of a layer.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LayerReport {
    /// The node's name.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// What it became; `None` when it stayed.
    pub scheme: Option<Scheme>,
    /// Number of weights.
    pub weights: usize,
    /// Signal to noise of the rounded weights, in dB.
    pub weight_sqnr_db: Option<f64>,
    /// Why it stayed.
    pub reason: Option<String>,
}

/// A quantised model.
#[derive(Debug)]
pub struct Quantized {
    /// In standard operators.
    pub graph: Graph,
    /// In the graph's order.
    pub layers: Vec<LayerReport>,
}

/// A model in the form that is quantised: operator set 13 or later, constants folded, batch normalisation in convolutions; all in standard
/// operators.
pub fn prepared(model: &Model) -> Result<Model> {
    let mut graph = model.graph().clone();
    upgrade(&mut graph)?;
    fold::fold(&mut graph, &hardware::cpu::info(1));
    Ok(Model::from_graph(standard(graph)))
}

/// Quantises a [`prepared`] model. `samples` are needed for ranges; without them convolutions stay. `progress` is told runs done and all.
pub fn quantize(
    model: &Model,
    options: &QuantizeOptions,
    samples: Option<&Samples>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized> {
    let smoothed = match (options.smooth, samples) {
        (Some(strength), Some(samples)) => Some(smoothed(model, options, strength, samples, progress)?),
        (Some(_), None) => return Err(Error::BadInput("smoothing needs samples".into())),
        (None, _) => None,
    };
    let model = smoothed.as_ref().unwrap_or(model);
    let mut graph = model.graph().clone();
    let all = layers(&graph);
    let known = |name: &String| all.iter().any(|l| l.name == *name);
    if let Some(name) = options.keep.iter().find(|name| !known(name)) {
        return Err(Error::BadInput(format!("no layer {name:?} to keep: {}", names(&all))));
    }
    let wanted: Vec<&Layer> = all.iter().filter(|l| !options.keep.contains(&l.name)).collect();
    let ranged: Vec<&Layer> = wanted.iter().copied().filter(|l| options.is_static(l.kind)).collect();
    let measured = match samples {
        Some(samples) if !ranged.is_empty() => measure(model, &ranged, samples, options, progress)?,
        _ => BTreeMap::new(),
    };
    let (mut chosen, mut reports) = (Vec::new(), Vec::new());
    for layer in &all {
        let scheme = if options.keep.contains(&layer.name) {
            Err("asked for".to_string())
        } else {
            scheme(layer.kind, options, measured.get(&layer.input))
        };
        let weights = graph.constant(layer.weight).cloned().unwrap_or_else(|| Tensor::scalar(0f32));
        let report = LayerReport {
            name: layer.name.clone(),
            kind: layer.kind,
            scheme: scheme.as_ref().ok().copied(),
            weights: weights.numel(),
            weight_sqnr_db: None,
            reason: scheme.as_ref().err().cloned(),
        };
        let Ok(scheme) = scheme else {
            reports.push(report);
            continue;
        };
        let stored = round_weights(layer.kind, &weights)?;
        let weight_sqnr_db = Some(weight_sqnr_db(layer.kind, &weights, &stored)?);
        reports.push(LayerReport { weight_sqnr_db, ..report });
        if let Some(means) = measured.get(&layer.input).filter(|_| options.correct_biases) {
            correct_bias(&mut graph, layer, &weights, &stored, means)?;
        }
        chosen.push((layer.clone(), scheme, stored));
    }
    Ok(Quantized { graph: rewrite(&graph, &chosen)?, layers: reports })
}

fn names(all: &[Layer]) -> String {
    let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
    format!("the layers are {}", names.join(", "))
}

fn scheme(kind: Kind, options: &QuantizeOptions, measured: Option<&Measured>) -> Result<Scheme, String> {
    let ranged = || match measured {
        Some(m) => Ok(Scheme::Static(m.affine)),
        None => Err("ranges need samples".to_string()),
    };
    match (kind, options.products, options.convolutions) {
        (Kind::Table, ..) if options.tables => Ok(Scheme::Weights),
        (Kind::Conv, _, Convolutions::Static) => ranged(),
        (Kind::Conv, _, Convolutions::Weights) => Ok(Scheme::Weights),
        (Kind::Table, ..) | (Kind::Conv, ..) | (_, Products::Keep, _) => Err("asked for".into()),
        (_, Products::Static, _) => ranged(),
        (_, Products::Rows, _) => Ok(Scheme::Rows),
        (_, Products::RowsAsymmetric, _) => Ok(Scheme::RowsAsymmetric),
        (_, Products::Weights, _) => Ok(Scheme::Weights),
    }
}

/// The model with the inputs of its products smoothed by their largest values over the samples.
fn smoothed(
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
struct Measured {
    affine: Affine,
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
fn measure(
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
            let q = crate::base::quant::quantize(v, affine.scale, affine.zero.into(), -128, 127);
            sum.0 += f64::from(v);
            sum.1 += f64::from(affine.scale) * f64::from(q - i32::from(affine.zero));
        }
        sum.2 += part.len() as f64;
    }
    Ok(())
}

/// Adds to the layer's bias what its weights and inputs, rounded, lack on average. Layers without room for a bias stay.
fn correct_bias(graph: &mut Graph, layer: &Layer, weights: &Tensor, stored: &Stored, measured: &Measured) -> Result<()> {
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
fn by_channel(columns: bool, weights: &Tensor, channels: usize) -> Result<Vec<Vec<f32>>> {
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

/// Signal to noise of rounded weights.
fn weight_sqnr_db(kind: Kind, weights: &Tensor, stored: &Stored) -> Result<f64> {
    let channels = stored.scales.numel();
    let exact = by_channel(kind == Kind::Product, weights, channels)?;
    let rounded = by_channel(kind.is_product(), &stored.dequantised(kind)?, channels)?;
    let mut difference = Difference::default();
    exact.iter().zip(&rounded).for_each(|(w, q)| difference.add(w, q, 0));
    Ok(difference.sqnr_db())
}
