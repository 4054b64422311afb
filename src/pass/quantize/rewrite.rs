//! Layers on integers in the place of those on floats.

use std::collections::HashMap;

use super::weights::{Bits, Stored};
use crate::base::{Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, Node, ValueId};
use crate::pass::emit::{Emit, TO_F32, TO_I8, TO_I32, splice};
use crate::pass::layer::{Kind, Layer, transposed};
use crate::pass::share;
use crate::pass::simplify::drop_unused;
use crate::pass::upgrade;

/// The least operator set whose (De)QuantizeLinear takes scales by channel.
const OPSET: i64 = 13;
/// The least operator set whose DequantizeLinear takes 4 bits and scales by group.
const PACKED_OPSET: i64 = 21;

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
    for (layer, scheme, stored) in chosen {
        let stored = Integers::new(&mut graph, layer, stored)?;
        for &at in &layer.nodes {
            let node = graph.nodes[at].clone();
            made.insert(at, integer(&mut graph, &node, layer, *scheme, &stored)?);
        }
    }
    splice(&mut graph, made);
    if chosen.iter().any(|(.., stored)| stored.bits.group_of_four().is_some()) {
        upgrade(&mut graph, PACKED_OPSET)?;
    }
    // Small constants alone: each layer is recognised by nodes of its own.
    share::constants(&mut graph);
    drop_unused(&mut graph);
    Ok(graph)
}

/// What becomes of a layer's node.
fn integer(graph: &mut Graph, node: &Node, layer: &Layer, scheme: Scheme, stored: &Integers) -> Result<Vec<Node>> {
    let error = |why: String| Error::Node { node: node.name.clone(), op: node.full_op(), why };
    if node.opset < OPSET {
        return Err(error(format!("operator set {} is below {OPSET}, which quantised layers need", node.opset)));
    }
    let x = node.inputs.first().copied().flatten().ok_or_else(|| error("no input".into()))?;
    if stored.bits != Bits::Eight && layer.kind != Kind::Table && scheme != Scheme::Weights {
        return Err(error("inputs are quantised with weights of 8 bits alone".into()));
    }
    let mut emit = Emit::new(graph, node);
    match (layer.kind, scheme) {
        (Kind::Table, _) => table(&mut emit, node, stored),
        (kind, Scheme::Weights) => weights_alone(&mut emit, node, kind, x, stored),
        (kind, Scheme::Static(affine)) => stored_range(&mut emit, node, kind, x, stored, affine),
        (Kind::Conv, _) => return Err(error("convolutions are quantised with ranges known ahead".into())),
        (_, Scheme::Rows | Scheme::RowsAsymmetric) => rows(&mut emit, node, x, stored, scheme),
    }
    Ok(emit.done())
}

/// A layer's weights in a graph.
struct Integers {
    values: ValueId,
    bits: Bits,
    group: usize,
    /// By channel; by group and channel; of tables, a column.
    scales: ValueId,
    zeros: ValueId,
    /// The scales as a matrix of one row.
    row_of_scales: ValueId,
    /// Of products: ones, as many as a column is long; a vector, so that inputs of one axis keep theirs.
    ones: ValueId,
}

impl Integers {
    fn new(graph: &mut Graph, layer: &Layer, stored: &Stored) -> Result<Self> {
        let value = &graph.values[layer.weight.0];
        let (name, shape) = (value.name.clone(), value.constant.as_ref().map(|t| t.shape().clone()).unwrap_or_default());
        let (rows, k, product) = (layer.rows, layer.k, layer.kind.is_product());
        let codes = if product { transposed(&stored.codes, rows, k) } else { stored.codes.clone() };
        let shape = if product { Shape::from([k, rows]) } else { shape };
        let values = match stored.bits {
            Bits::Sixteen => Tensor::new(shape.clone(), &codes)?,
            _ => Tensor::new(shape.clone(), &codes.iter().map(|&c| c as i8).collect::<Vec<_>>())?,
        };
        let ones_but = |axis: usize| (0..shape.rank()).map(|i| if i == axis { shape[i] } else { 1 }).collect::<Shape>();
        let mut column = shape.clone();
        column.last_mut().into_iter().for_each(|n| *n = 1);
        let by_group = |scales: &[f32]| Tensor::new([k / stored.group, rows], scales);
        let zeros = match stored.bits {
            Bits::FourAsymmetric(_) => Tensor::new([k / stored.group, rows], &transposed(&stored.zeros, rows, k / stored.group))?,
            _ => Tensor::vector(&vec![0i8; rows]),
        };
        let scales = Tensor::vector(&stored.scales);
        let row_of_scales = scales.reshaped([1, stored.scales.len()].into())?;
        let scales = match (stored.bits, layer.kind) {
            (_, Kind::Table) => scales.reshaped(column)?,
            (Bits::Four(_) | Bits::FourAsymmetric(_), _) => by_group(&transposed(&stored.scales, rows, k / stored.group))?,
            (Bits::Sixteen, _) => scales.reshaped(ones_but(if product { 1 } else { 0 }))?,
            (Bits::Eight, _) => scales,
        };
        let mut add = |what: &str, t: Tensor| graph.add_value(format!("{name}/{what}"), Some(t));
        let made = Integers {
            values: add("integers", values),
            bits: stored.bits,
            group: stored.group,
            scales: add("scales", scales),
            row_of_scales: add("row_of_scales", row_of_scales),
            zeros: add("zeros", zeros),
            ones: add("ones", Tensor::new([k], &vec![1i8; k])?),
        };
        graph.values[made.values.0].is_packed = stored.bits.group_of_four().is_some();
        graph.values[made.zeros.0].is_packed = matches!(stored.bits, Bits::FourAsymmetric(_));
        Ok(made)
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
    let axis = ("axis", Attr::Int(if kind.is_product() && stored.bits == Bits::Eight { 1 } else { 0 }));
    match stored.bits {
        Bits::Eight => emit.with("DequantizeLinear", &[stored.values, stored.scales, stored.zeros], [axis]),
        Bits::Four(_) | Bits::FourAsymmetric(_) => {
            let group = ("block_size", Attr::Int(stored.group as i64));
            let zeros = matches!(stored.bits, Bits::FourAsymmetric(_)).then_some(stored.zeros);
            let operands: Vec<ValueId> = [stored.values, stored.scales].into_iter().chain(zeros).collect();
            emit.with("DequantizeLinear", &operands, [axis, group])
        }
        // DequantizeLinear takes 16 bits from operator set 21 on.
        Bits::Sixteen => {
            let wide = emit.cast(stored.values, TO_F32);
            emit.op("Mul", &[wide, stored.scales])
        }
    }
}

/// The layer itself on other operands.
fn again(emit: &mut Emit, node: &Node, x: ValueId, weight: ValueId) {
    let mut new = node.clone();
    new.attrs.remove("transB");
    new.inputs[0] = Some(x);
    new.inputs[1] = Some(weight);
    emit.node(new);
}

fn weights_alone(emit: &mut Emit, node: &Node, kind: Kind, x: ValueId, stored: &Integers) {
    let weight = dequantised(emit, kind, stored);
    again(emit, node, x, weight);
}

fn stored_range(emit: &mut Emit, node: &Node, kind: Kind, x: ValueId, stored: &Integers, affine: Affine) {
    let scale = emit.constant("input_scale", Tensor::scalar(affine.scale));
    let zero = emit.constant("input_zero", Tensor::scalar(affine.zero));
    let x = emit.op("QuantizeLinear", &[x, scale, zero]);
    let x = emit.op("DequantizeLinear", &[x, scale, zero]);
    let weight = dequantised(emit, kind, stored);
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
