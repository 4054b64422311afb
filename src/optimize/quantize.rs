//! Quantisation of a model: which layers become what, with ranges and biases from samples.

use std::collections::BTreeMap;

use super::Samples;
use super::ranges::{Measured, by_channel, correct_bias, measure, smoothed};
use crate::base::Tensor;
use crate::calibrate::Calibrator;
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::hardware;
use crate::pass::quantize::{Kind, Layer, Scheme, Stored, layers, quantize as rewrite, round_weights};
use crate::pass::{standard, upgrade};
use crate::plan::fold;
use crate::session::Model;

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
#[derive(Debug, Clone, PartialEq)]
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
    Calibrated::new(model, options, samples, progress)?.quantized(&[])
}

/// A [`prepared`] model of which all is known that quantisation asks for: any choice of layers can be quantised without runs.
pub struct Calibrated {
    model: Model,
    options: QuantizeOptions,
    layers: Vec<Layer>,
    measured: BTreeMap<ValueId, Measured>,
}

impl Calibrated {
    /// Runs the model on the samples. Errors where a layer to be kept is none.
    pub fn new(
        model: &Model,
        options: &QuantizeOptions,
        samples: Option<&Samples>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let model = match (options.smooth, samples) {
            (Some(strength), Some(samples)) => smoothed(model, options, strength, samples, progress)?,
            (Some(_), None) => return Err(Error::BadInput("smoothing needs samples".into())),
            (None, _) => model.clone(),
        };
        let layers = layers(model.graph());
        let known = |name: &String| layers.iter().any(|l| l.name == *name);
        if let Some(name) = options.keep.iter().find(|name| !known(name)) {
            return Err(Error::BadInput(format!("no layer {name:?} to keep: {}", names(&layers))));
        }
        let ranged: Vec<&Layer> =
            layers.iter().filter(|l| !options.keep.contains(&l.name) && options.is_static(l.kind)).collect();
        let measured = match samples {
            Some(samples) if !ranged.is_empty() => measure(&model, &ranged, samples, options, progress)?,
            _ => BTreeMap::new(),
        };
        Ok(Calibrated { model, options: options.clone(), layers, measured })
    }

    /// The layers' names, in the graph's order.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|l| l.name.as_str())
    }

    /// The model with all layers quantised but those to keep, by the options or here.
    pub fn quantized(&self, keep: &[String]) -> Result<Quantized> {
        let mut graph = self.model.graph().clone();
        let (mut chosen, mut reports) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let asked = self.options.keep.contains(&layer.name);
            let scheme = match asked || keep.contains(&layer.name) {
                true => Err(if asked { "asked for" } else { "its error is too large" }.to_string()),
                false => scheme(layer.kind, &self.options, self.measured.get(&layer.input)),
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
            if let Some(means) = self.measured.get(&layer.input).filter(|_| self.options.correct_biases) {
                correct_bias(&mut graph, layer, &weights, &stored, means)?;
            }
            chosen.push((layer.clone(), scheme, stored));
        }
        Ok(Quantized { graph: rewrite(&graph, &chosen)?, layers: reports })
    }
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

/// Signal to noise of rounded weights.
fn weight_sqnr_db(kind: Kind, weights: &Tensor, stored: &Stored) -> Result<f64> {
    let channels = stored.scales.numel();
    let exact = by_channel(kind == Kind::Product, weights, channels)?;
    let rounded = by_channel(kind.is_product(), &stored.dequantised(kind)?, channels)?;
    let mut difference = Difference::default();
    exact.iter().zip(&rounded).for_each(|(w, q)| difference.add(w, q, 0));
    Ok(difference.sqnr_db())
}
