//! Quantisation of a model: which layers become what, with ranges and biases from samples.

use std::collections::{BTreeMap, BTreeSet};

use super::Samples;
use super::biases::{self, Biases, Rounded};
use super::ranges::{Smoothing, ranges, smoothed, sources};
use super::rounding::{Rounding, gptq};
use crate::base::Tensor;
use crate::calibrate::Calibrator;
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::hardware;
use crate::pass::layer::{Kind, Layer, Refused, all_layers};
use crate::pass::quantize::{Affine, Bits, Scheme, Stored, quantize as rewrite};
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
    /// Of those of each channel by itself, whose channels may differ far in range and which are little work.
    pub depthwise: Convolutions,
    /// Rows of embedding tables as 8 bits with a scale each.
    pub tables: bool,
    /// How ranges are chosen.
    pub calibrator: Calibrator,
    /// How weights are stored; other than 8 bits go with schemes of weights alone.
    pub bits: Bits,
    /// How weights become integers.
    pub rounding: Rounding,
    /// How biases make up for errors.
    pub biases: Biases,
    /// Moves large channels of the inputs of products whose rows are quantised into their weights.
    pub smooth: Option<Smoothing>,
    /// Names of nodes that stay as they are.
    pub keep: Vec<String>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        QuantizeOptions {
            products: Products::default(),
            convolutions: Convolutions::default(),
            depthwise: Convolutions::default(),
            tables: true,
            calibrator: Calibrator::default(),
            bits: Bits::default(),
            rounding: Rounding::default(),
            biases: Biases::default(),
            smooth: None,
            keep: Vec::new(),
        }
    }
}

impl QuantizeOptions {
    /// Whether one of a layer's nodes is to stay.
    pub(super) fn keeps(&self, graph: &Graph, layer: &Layer) -> bool {
        is_named(graph, layer, &self.keep)
    }

    /// What a convolution becomes: no more than convolutions, and no more than depthwise ones where it is one.
    fn convolution(&self, layer: &Layer) -> Convolutions {
        match (self.convolutions, self.depthwise) {
            (Convolutions::Static, depthwise) if layer.is_depthwise() => depthwise,
            (Convolutions::Weights, Convolutions::Keep) if layer.is_depthwise() => Convolutions::Keep,
            (all, _) => all,
        }
    }

    /// Whether a layer becomes another.
    pub(super) fn rounds(&self, layer: &Layer) -> bool {
        match layer.kind {
            Kind::Conv => self.convolution(layer) != Convolutions::Keep,
            Kind::Table => self.tables,
            _ => self.products != Products::Keep,
        }
    }

    /// Whether ranges have to be found for a layer.
    pub(super) fn is_static(&self, layer: &Layer) -> bool {
        match layer.kind {
            Kind::Conv => self.convolution(layer) == Convolutions::Static,
            Kind::Table => false,
            _ => self.products == Products::Static,
        }
    }
}

/// Whether the name of the layer or of one of its nodes is among these.
fn is_named(graph: &Graph, layer: &Layer, names: &[String]) -> bool {
    names.contains(&layer.name) || layer.nodes.iter().any(|&n| names.contains(&graph.nodes[n].name))
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
    /// How its weights are stored.
    pub bits: Option<Bits>,
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
    /// What looks like a layer and is none, and why.
    pub refused: Vec<Refused>,
}

/// A model in the form that is quantised: operator set 13 or later, constants folded, batch normalisation in convolutions; all in standard
/// operators.
pub fn prepared(model: &Model) -> Result<Model> {
    let mut graph = model.graph().clone();
    upgrade(&mut graph, 13)?;
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

/// A [`prepared`] model with all that its layers' quantised forms need: any choice of them can be quantised without
/// running it again.
pub struct Calibrated {
    model: Model,
    layers: Vec<Ready>,
    refused: Vec<Refused>,
}

/// A layer with its quantised form.
struct Ready {
    layer: Layer,
    /// Or why it stays.
    scheme: Result<Scheme, String>,
    stored: Stored,
    weight_sqnr_db: f64,
    /// Corrected, with all layers rounded.
    bias: Option<Tensor>,
}

impl Ready {
    fn rounded(&self, scheme: Scheme) -> Rounded {
        (self.layer.clone(), scheme, self.stored.clone())
    }
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
            (Some(how), Some(samples)) => smoothed(model, options, how, samples, progress)?,
            (Some(_), None) => return Err(Error::BadInput("smoothing needs samples".into())),
            (None, _) => model.clone(),
        };
        let graph = model.graph();
        let (layers, refused) = all_layers(graph);
        let known = |name: &&String| layers.iter().any(|l| is_named(graph, l, std::slice::from_ref(name)));
        if let Some(name) = options.keep.iter().find(|name| !known(name)) {
            return Err(Error::BadInput(format!("no layer {name:?} to keep: {}", names(&layers))));
        }
        let ranged = layers.iter().filter(|l| !options.keeps(graph, l) && options.is_static(l));
        let ranged: BTreeSet<Vec<ValueId>> = ranged.map(|l| sources(graph, l)).collect();
        let ranges = match samples {
            Some(samples) if !ranged.is_empty() => ranges(&model, &ranged, samples, options.calibrator, progress)?,
            _ => BTreeMap::new(),
        };
        let stored = stored(&model, &layers, options, samples, progress)?;
        let ready = |(layer, mut stored): (Layer, Stored)| {
            let scheme = match options.keeps(graph, &layer) {
                true => Err("asked for".to_string()),
                false => scheme(&layer, options, ranges.get(&sources(graph, &layer))),
            };
            if let Ok(Scheme::Static(range)) = scheme {
                stored.hold_bias(&layer.weights(graph)?, &bias(graph, &layer), range.scale);
            }
            let mut difference = Difference::default();
            difference.add(&layer.weights(graph)?, &stored.dequantised(), 0);
            Ok(Ready { layer, scheme, stored, weight_sqnr_db: difference.sqnr_db(), bias: None })
        };
        let mut layers = layers.into_iter().zip(stored).map(ready).collect::<Result<Vec<Ready>>>()?;
        if let Some(samples) = samples {
            let mut rounded: Vec<&mut Ready> = layers.iter_mut().filter(|l| l.scheme.is_ok()).collect();
            let all: Vec<Rounded> = rounded.iter().filter_map(|l| Some(l.rounded(l.scheme.clone().ok()?))).collect();
            let biases = biases::corrected(&model, &all, options.biases, samples, progress)?;
            rounded.iter_mut().zip(biases).for_each(|(layer, bias)| layer.bias = bias);
        }
        Ok(Calibrated { model, layers, refused })
    }

    /// The layers' names, in the graph's order.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|l| l.layer.name.as_str())
    }

    /// The model with all layers quantised but those to keep, by the options or here.
    pub fn quantized(&self, keep: &[String]) -> Result<Quantized> {
        let mut graph = self.model.graph().clone();
        let (mut chosen, mut reports) = (Vec::new(), Vec::new());
        for ready in &self.layers {
            let Ready { layer, stored, .. } = ready;
            let scheme = match is_named(&graph, layer, keep) {
                true => Err("its error is too large".to_string()),
                false => ready.scheme.clone(),
            };
            reports.push(LayerReport {
                name: layer.name.clone(),
                kind: layer.kind,
                scheme: scheme.as_ref().ok().copied(),
                weights: layer.rows * layer.k,
                bits: scheme.is_ok().then_some(stored.bits),
                weight_sqnr_db: scheme.is_ok().then_some(ready.weight_sqnr_db),
                reason: scheme.as_ref().err().cloned(),
            });
            let Ok(scheme) = scheme else { continue };
            let rounded = ready.rounded(scheme);
            if let Some(bias) = &ready.bias {
                biases::put(&mut graph, &rounded, bias);
            }
            chosen.push(rounded);
        }
        Ok(Quantized { graph: rewrite(&graph, &chosen)?, layers: reports, refused: self.refused.clone() })
    }
}

/// The weights of each layer as integers.
fn stored(
    model: &Model,
    layers: &[Layer],
    options: &QuantizeOptions,
    samples: Option<&Samples>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Stored>> {
    let one = |(at, layer): (usize, &Layer)| {
        let bits = match (options.bits, layer.kind.is_product()) {
            (Bits::Four(_) | Bits::FourAsymmetric(_), false) => Bits::Eight,
            (bits, _) => bits,
        };
        let nearest = Stored::nearest(&layer.weights(model.graph())?, layer.k, bits);
        progress(at + 1, layers.len());
        match (options.rounding, samples) {
            (Rounding::Nearest, _) => Ok(nearest),
            (Rounding::Gptq, None) => Err(Error::BadInput("rounding by what goes into layers needs samples".into())),
            _ if layer.kind == Kind::Table || options.keeps(model.graph(), layer) || !options.rounds(layer) => Ok(nearest),
            (Rounding::Gptq, Some(samples)) => gptq(model, layer, &nearest, samples),
        }
    };
    layers.iter().enumerate().map(one).collect()
}

fn names(all: &[Layer]) -> String {
    let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
    format!("the layers are {}", names.join(", "))
}

/// The largest magnitude of each row's bias among a layer's nodes; none where it has none.
fn bias(graph: &Graph, layer: &Layer) -> Vec<f32> {
    let mut most = vec![0f32; layer.rows];
    for &node in &layer.nodes {
        let bias = graph.nodes[node].inputs.get(2).copied().flatten().and_then(|v| graph.constant(v));
        let Some(Ok(bias)) = bias.filter(|t| t.numel() == layer.rows).map(|t| t.values::<f32>()) else { continue };
        most.iter_mut().zip(bias.iter()).for_each(|(most, b)| *most = most.max(b.abs()));
    }
    most
}

/// Most inputs of an output: 255 steps of one by 127 of a weight, summed in 32 bits.
const MOST_INPUTS: usize = i32::MAX as usize / (255 * 127);

fn scheme(layer: &Layer, options: &QuantizeOptions, range: Option<&Affine>) -> Result<Scheme, String> {
    let ranged = || range.map(|affine| Scheme::Static(*affine)).ok_or("ranges need samples".to_string());
    let is_summed = options.is_static(layer) || layer.kind.is_product() && options.products != Products::Weights;
    if is_summed && layer.k > MOST_INPUTS && options.rounds(layer) {
        return Err(format!("sums of more than {MOST_INPUTS} inputs could pass 32 bits"));
    }
    match (layer.kind, options.products, options.convolution(layer)) {
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
