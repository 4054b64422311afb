//! Layers on integers in the place of those on floats.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::layers::{Kind, Layer};
use super::weights::Stored;
use crate::base::{Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, Node, ValueId};
use crate::pass::emit::{Emit, TO_F32, TO_I8, TO_I32, splice};
use crate::pass::share;
use crate::pass::simplify::drop_unused;

/// The least operator set whose (De)QuantizeLinear takes scales by channel.
pub const OPSET: i64 = 13;

/// `x = scale * (q - zero)` for q in [-128, 127].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Affine {
    /// Positive.
    pub scale: f32,
    /// What 0 becomes.
    pub zero: i8,
}

/// What becomes of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Scheme {
    /// Each row of the input to s8 in [-127, 127] by its largest magnitude, while running.
    Rows,
    /// Each row of the input to 8 bits by its range, while running.
    RowsAsymmetric,
    /// The input to s8 by a scale and zero point that are known ahead (QDQ).
    Static(Affine),
    /// The weights alone; arithmetic stays in floats.
    Weights,
}

/// Rewrites the layers in standard operators. Errors where a scheme does not fit a layer, or the operator set is below 13.
pub fn quantize(graph: &Graph, chosen: &[(Layer, Scheme, Stored)]) -> Result<Graph> {
    let mut graph = graph.clone();
    let mut made = HashMap::new();
    // Layers may share their weights.
    let mut shared: HashMap<(ValueId, Kind), Integers> = HashMap::new();
    for (layer, scheme, stored) in chosen {
        let node = graph.nodes[layer.node].clone();
        if node.opset < OPSET {
            let why = format!("operator set {} is below {OPSET}, which quantised layers need", node.opset);
            return Err(Error::Node { node: node.name.clone(), op: node.full_op(), why });
        }
        let stored = &*match shared.entry((layer.weight, layer.kind)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Integers::new(&mut graph, layer, stored)?),
        };
        let mut emit = Emit::new(&mut graph, &node);
        match (layer.kind, scheme) {
            (Kind::Table, _) => table(&mut emit, &node, stored),
            (_, Scheme::Weights) => weights_alone(&mut emit, &node, layer, stored),
            (_, Scheme::Static(affine)) => stored_range(&mut emit, &node, layer, stored, *affine),
            (Kind::Conv, _) => {
                let why = "convolutions are quantised with ranges known ahead".into();
                return Err(Error::Node { node: node.name.clone(), op: node.full_op(), why });
            }
            (_, Scheme::Rows | Scheme::RowsAsymmetric) => rows(&mut emit, &node, layer.input, stored, *scheme),
        }
        let nodes = emit.done();
        made.insert(layer.node, nodes);
    }
    splice(&mut graph, made);
    // Small constants alone: each layer is recognised by nodes of its own.
    share::constants(&mut graph);
    drop_unused(&mut graph);
    Ok(graph)
}

/// A layer's weights in a graph.
struct Integers {
    values: ValueId,
    scales: ValueId,
    zeros: ValueId,
    /// The scales as a matrix of one row.
    row_of_scales: ValueId,
    /// Of products: a row of ones as long as a column.
    ones: ValueId,
}

impl Integers {
    fn new(graph: &mut Graph, layer: &Layer, stored: &Stored) -> Result<Self> {
        let name = graph.values[layer.weight.0].name.clone();
        let (rows, channels) = (stored.values.shape()[0], stored.scales.numel());
        let mut column = stored.values.shape().clone();
        column.last_mut().into_iter().for_each(|n| *n = 1);
        let scales = if layer.kind == Kind::Table { stored.scales.reshaped(column)? } else { stored.scales.clone() };
        let row = stored.scales.reshaped(Shape::from([1, channels]))?;
        let ones = Tensor::new([1, rows], &vec![1i8; rows])?;
        let mut add = |what: &str, t: Tensor| graph.add_value(format!("{name}/{what}"), Some(t));
        Ok(Integers {
            values: add("int8", stored.values.clone()),
            scales: add("scales", scales),
            row_of_scales: add("row_of_scales", row),
            zeros: add("zeros", Tensor::vector(&vec![0i8; channels])),
            ones: add("ones", ones),
        })
    }
}

/// The bias of a Gemm or Conv.
fn bias(node: &Node) -> Option<ValueId> {
    node.inputs.get(2).copied().flatten()
}

/// Rows of a table and their scales, each taken by the node.
fn table(emit: &mut Emit, node: &Node, stored: &Integers) {
    let [values, scales] = [stored.values, stored.scales].map(|table| {
        let mut new = node.clone();
        new.inputs[0] = Some(table);
        emit.node(new)
    });
    let values = emit.cast(values, TO_F32);
    emit.op("Mul", &[values, scales]);
}

/// The weights as a float value again.
fn dequantised(emit: &mut Emit, kind: Kind, stored: &Integers) -> ValueId {
    let axis = if kind.is_product() { 1 } else { 0 };
    emit.with("DequantizeLinear", &[stored.values, stored.scales, stored.zeros], [("axis", Attr::Int(axis))])
}

/// The layer itself on other operands.
fn again(emit: &mut Emit, node: &Node, x: ValueId, weight: ValueId) {
    let mut new = node.clone();
    new.attrs.remove("transB");
    new.inputs[0] = Some(x);
    new.inputs[1] = Some(weight);
    emit.node(new);
}

fn weights_alone(emit: &mut Emit, node: &Node, layer: &Layer, stored: &Integers) {
    let weight = dequantised(emit, layer.kind, stored);
    again(emit, node, layer.input, weight);
}

fn stored_range(emit: &mut Emit, node: &Node, layer: &Layer, stored: &Integers, affine: Affine) {
    let scale = emit.constant("input_scale", Tensor::scalar(affine.scale));
    let zero = emit.constant("input_zero", Tensor::scalar(affine.zero));
    let x = emit.op("QuantizeLinear", &[layer.input, scale, zero]);
    let x = emit.op("DequantizeLinear", &[x, scale, zero]);
    let weight = dequantised(emit, layer.kind, stored);
    again(emit, node, x, weight);
}

/// The product whose rows are quantised while running, in the order of the kernels' arithmetic (`halfbyte:LinearInt8`), so that results
/// are theirs bit for bit. `pass/rows.rs` finds it again.
fn rows(emit: &mut Emit, node: &Node, x: ValueId, stored: &Integers, scheme: Scheme) {
    let number = |emit: &mut Emit, what: &str, v: f32| emit.constant(what, Tensor::scalar(v));
    let (zero, one) = (number(emit, "zero", 0.0), number(emit, "one", 1.0));
    // A row of zeros has the scale 1.
    let guarded = |emit: &mut Emit, scale: ValueId| {
        let none = emit.op("Equal", &[scale, zero]);
        emit.op("Where", &[none, one, scale])
    };
    let (sum, scale) = if scheme == Scheme::Rows {
        let magnitudes = emit.op("Abs", &[x]);
        let largest = emit.along_rows("ReduceMax", magnitudes);
        let levels = number(emit, "levels", 127.0);
        let scale = emit.op("Div", &[largest, levels]);
        let scale = guarded(emit, scale);
        let scaled = emit.op("Div", &[x, scale]);
        let rounded = emit.op("Round", &[scaled]);
        let bytes = emit.cast(rounded, TO_I8);
        (emit.op("MatMulInteger", &[bytes, stored.values]), scale)
    } else {
        let (least, largest) = (emit.along_rows("ReduceMin", x), emit.along_rows("ReduceMax", x));
        let (least, largest) = (emit.op("Min", &[least, zero]), emit.op("Max", &[largest, zero]));
        let range = emit.op("Sub", &[largest, least]);
        let (levels, half) = (number(emit, "levels", 255.0), number(emit, "half", 128.0));
        let scale = emit.op("Div", &[range, levels]);
        let scale = guarded(emit, scale);
        let below = emit.op("Neg", &[least]);
        let below = emit.op("Div", &[below, scale]);
        let offset = emit.op("Round", &[below]);
        let scaled = emit.op("Div", &[x, scale]);
        let rounded = emit.op("Round", &[scaled]);
        let moved = emit.op("Add", &[rounded, offset]);
        let clipped = emit.op("Clip", &[moved, zero, levels]);
        // Signed bytes: processors without VNNI saturate sums of unsigned ones in other engines.
        let signed = emit.op("Sub", &[clipped, half]);
        let bytes = emit.cast(signed, TO_I8);
        let product = emit.op("MatMulInteger", &[bytes, stored.values]);
        let offset = emit.op("Sub", &[offset, half]);
        let offset = emit.cast(offset, TO_I32);
        // The columns' sums: constant, so they are taken once, when a model is loaded.
        let sums = emit.op("MatMulInteger", &[stored.ones, stored.values]);
        let excess = emit.op("Mul", &[offset, sums]);
        (emit.op("Sub", &[product, excess]), scale)
    };
    let sum = emit.cast(sum, TO_F32);
    // An outer product: of a multiplication ONNX Runtime would make an operator that it lacks for s8.
    let factor = emit.op("MatMul", &[scale, stored.row_of_scales]);
    let y = emit.op("Mul", &[sum, factor]);
    if let Some(bias) = bias(node) {
        emit.op("Add", &[y, bias]);
    }
}
