//! Convolutions and matrix products between dequantised operands and a quantised result become the integer operators, whose sums
//! are exact: in floats, a sum's rounding decides now and then to which integer the result goes.

use std::collections::HashMap;

use super::emit::{Emit, TO_F32, splice};
use super::index::Index;
use super::pattern::{int, is_plain_product};
use super::simplify::drop_unused;
use crate::base::{DType, Shape, Tensor};
use crate::graph::{Graph, Node, NodeId, ValueId};

/// Rewrites `QuantizeLinear(Conv(DequantizeLinear, DequantizeLinear, [bias]))` to QLinearConv, and the like of MatMul to
/// QLinearMatMul.
pub(super) fn rewrite(graph: &mut Graph) -> usize {
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in 0..graph.nodes.len() {
        if let Some((inner, node)) = integer(graph, &index, at) {
            index.replace(graph, at, node, &[inner]);
            count += 1;
        }
    }
    index.sweep(graph);
    let index = Index::new(graph);
    let places = 0..graph.nodes.len();
    let made: HashMap<NodeId, Vec<Node>> = places.filter_map(|at| Some((at, with_float_result(graph, &index, at)?))).collect();
    let floats = made.len();
    splice(graph, made);
    if floats > 0 {
        drop_unused(graph);
    }
    count + floats
}

/// What a DequantizeLinear or QuantizeLinear node is given: value, scale and zero point.
pub(super) struct Scaled {
    pub value: ValueId,
    pub scale: ValueId,
    pub zero: ValueId,
}

/// The operands of a node of this name, if it is of 8-bit integers with a zero point.
pub(super) fn scaled(graph: &Graph, index: &Index, at: NodeId, op: &str) -> Option<Scaled> {
    let node = &graph.nodes[at];
    if node.op != op || !node.domain.is_empty() || node.epilogue.is_some() || node.attrs.contains_key("block_size") {
        return None;
    }
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let (value, scale, zero) = (input(0)?, input(1)?, input(2)?);
    let byte = |d: DType| matches!(d, DType::U8 | DType::I8);
    let known = index.constant(graph, zero).is_some_and(|z| byte(z.dtype()));
    let f32_scale = index.constant(graph, scale).is_some_and(|s| s.dtype() == DType::F32);
    (known && f32_scale).then_some(Scaled { value, scale, zero })
}

/// The integer node that takes the place of the QuantizeLinear node `at`, and the float one that goes with it.
fn integer(graph: &mut Graph, index: &Index, at: NodeId) -> Option<(NodeId, Node)> {
    let out = scaled(graph, index, at, "QuantizeLinear")?;
    let inner = index.producer(out.value)?;
    let node = &graph.nodes[inner];
    let plain = node.domain.is_empty() && node.epilogue.is_none() && index.uses(out.value) == 1;
    if !plain || !matches!(node.op.as_str(), "Conv" | "MatMul") {
        return None;
    }
    let operand = |i: usize| {
        let value = node.inputs.get(i).copied().flatten()?;
        scaled(graph, index, index.producer(value)?, "DequantizeLinear")
    };
    let (a, b) = (operand(0)?, operand(1)?);
    let one = |v: ValueId| index.scalar(graph, v).is_some();
    if !one(a.scale) || !one(a.zero) || !one(out.scale) || !one(out.zero) {
        return None;
    }
    let conv = node.op == "Conv";
    // A convolution's weights may have scales by output channel; a product's are by column only when they are one for all here.
    if !conv && (!one(b.scale) || !one(b.zero)) {
        return None;
    }
    let mut inputs = [&a, &b].map(|s| [Some(s.value), Some(s.scale), Some(s.zero)]).concat();
    inputs.extend([Some(out.scale), Some(out.zero)]);
    if let Some(bias) = node.inputs.get(2).copied().flatten() {
        inputs.push(Some(integer_bias(graph, index, bias, &a, &b)?));
    }
    let op = if conv { "QLinearConv" } else { "QLinearMatMul" };
    let name = node.name.clone();
    let attrs = node.attrs.clone();
    let outputs = graph.nodes[at].outputs.clone();
    Some((inner, Node { name, attrs, ..Node::new("", op, 10, inputs, outputs) }))
}

/// A convolution or product of dequantised operands whose result stays a float: exact sums, then one multiplication by the product of
/// the scales, then the bias.
fn with_float_result(graph: &mut Graph, index: &Index, at: NodeId) -> Option<Vec<Node>> {
    let node = graph.nodes[at].clone();
    let is_conv = node.op == "Conv" && node.domain.is_empty();
    if !(is_conv || is_plain_product(&node)) || node.epilogue.is_some() || int(&node, "transB", 0) != 0 {
        return None;
    }
    let operand = |i: usize| {
        let producer = index.producer(node.inputs.get(i).copied().flatten()?)?;
        Some((scaled(graph, index, producer, "DequantizeLinear")?, int(&graph.nodes[producer], "axis", 1)))
    };
    let ((a, _), (b, axis)) = (operand(0)?, operand(1)?);
    let one = |v: ValueId| index.scalar(graph, v).is_some();
    if !one(a.scale) || !one(a.zero) {
        return None;
    }
    let by_channel = if node.op == "Conv" { axis == 0 } else { axis == 1 || axis == -1 };
    if !(by_channel || (one(b.scale) && one(b.zero))) {
        return None;
    }
    let bias = match node.inputs.get(2).copied().flatten() {
        Some(v) => Some(float_bias(graph, index, v)?),
        None => None,
    };
    if node.op == "Conv" {
        conv_to_float(graph, index, &node, a, b, bias)
    } else {
        product_to_float(graph, index, &node, a, b, bias)
    }
}

fn conv_to_float(graph: &mut Graph, index: &Index, node: &Node, a: Scaled, b: Scaled, bias: Option<Tensor>) -> Option<Vec<Node>> {
    let rank = index.constant(graph, b.value)?.shape().rank();
    let by_channel = |t: Tensor| {
        let ones = Shape::from(&vec![1; rank - 2][..]);
        let shape: Shape = [t.numel()].into_iter().chain(ones.iter().copied()).collect();
        t.reshaped(shape).ok()
    };
    let x_scale = index.scalar(graph, a.scale)? as f32;
    let factors: Vec<f32> = index.constant(graph, b.scale)?.values::<f32>().ok()?.iter().map(|w| x_scale * w).collect();
    let (factors, bias) = (by_channel(Tensor::vector(&factors))?, bias.map(by_channel));
    let inputs = [a.value, b.value, a.zero, b.zero].map(Some).to_vec();
    let mut emit = Emit::new(graph, node);
    let sums = emit.node(Node { attrs: node.attrs.clone(), ..Node::new("", "ConvInteger", 10, inputs, Vec::new()) });
    let sums = emit.cast(sums, TO_F32);
    let factors = emit.constant("factors", factors);
    let y = emit.op("Mul", &[sums, factors]);
    if let Some(bias) = bias {
        let bias = emit.constant("bias", bias?);
        emit.op("Add", &[y, bias]);
    }
    Some(emit.done())
}

fn product_to_float(
    graph: &mut Graph,
    index: &Index,
    node: &Node,
    a: Scaled,
    b: Scaled,
    bias: Option<Tensor>,
) -> Option<Vec<Node>> {
    // Scales by column of a B with batch axes have another meaning.
    let matrix = index.constant(graph, b.value).is_some_and(|t| t.shape().rank() == 2);
    if !matrix && index.scalar(graph, b.scale).is_none() {
        return None;
    }
    let inputs = [a.value, b.value, a.scale, b.scale, a.zero, b.zero].map(Some).to_vec();
    let mut emit = Emit::new(graph, node);
    let y = emit.node(Node::new("com.microsoft", "MatMulIntegerToFloat", 1, inputs, Vec::new()));
    if let Some(bias) = bias {
        let bias = emit.constant("bias", bias);
        emit.op("Add", &[y, bias]);
    }
    Some(emit.done())
}

/// A bias as f32: a constant, or what a dequantised constant stands for.
fn float_bias(graph: &Graph, index: &Index, bias: ValueId) -> Option<Tensor> {
    if let Some(t) = index.constant(graph, bias) {
        return (t.dtype() == DType::F32).then(|| t.clone());
    }
    let node = &graph.nodes[index.producer(bias)?];
    if node.op != "DequantizeLinear" || !node.domain.is_empty() {
        return None;
    }
    let values = |i: usize| Some(index.constant(graph, node.inputs.get(i).copied().flatten()?)?.to_f64());
    let (q, scale) = (values(0)?, values(1)?);
    let zero = if node.inputs.len() > 2 { values(2)? } else { vec![0.0] };
    let at = |v: &[f64], i: usize| v[if v.len() == 1 { 0 } else { i }] as f32;
    let fits = |v: &[f64]| v.len() == 1 || v.len() == q.len();
    if !fits(&scale) || !fits(&zero) {
        return None;
    }
    Some(Tensor::vector(&(0..q.len()).map(|i| (q[i] as f32 - at(&zero, i)) * at(&scale, i)).collect::<Vec<_>>()))
}

/// The i32 bias behind a dequantised one, whose scale must be the product of the operands' scales.
fn integer_bias(graph: &Graph, index: &Index, bias: ValueId, a: &Scaled, b: &Scaled) -> Option<ValueId> {
    let node = &graph.nodes[index.producer(bias)?];
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    if node.op != "DequantizeLinear" || !node.domain.is_empty() {
        return None;
    }
    let values = |v: ValueId| Some(index.constant(graph, v)?.to_f64());
    let (value, scale) = (input(0)?, values(input(1)?)?);
    let zeros = input(2).map_or(Some(Vec::new()), values)?;
    let (a, b) = (values(a.scale)?, values(b.scale)?);
    let at = |v: &[f64], i: usize| v[if v.len() == 1 { 0 } else { i }];
    let channels = scale.len().max(b.len());
    let lengths = [scale.len(), b.len()].iter().all(|&n| n == 1 || n == channels);
    let same = |i: usize| (at(&scale, i) - a[0] * at(&b, i)).abs() <= 1e-6 * at(&scale, i).abs();
    let right = lengths && (0..channels).all(same) && zeros.iter().all(|&z| z == 0.0);
    (right && index.constant(graph, value)?.dtype() == DType::I32).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Tensor;
    use crate::graph::Port;

    /// `QuantizeLinear(Conv(x, w, bias))` over dequantised operands, the bias with this scale.
    fn graph(bias_scale: f32) -> Graph {
        let mut g = Graph::default();
        let x = g.add_value("x", None);
        g.inputs.push(Port { value: x, dtype: Some(DType::U8), dims: None });
        let (xs, xz) = (g.add_value("xs", Some(Tensor::scalar(0.5f32))), g.add_value("xz", Some(Tensor::scalar(128u8))));
        let w = g.add_value("w", Some(Tensor::new([2, 1, 1, 1], &[3i8, -7]).unwrap()));
        let (ws, wz) = (g.add_value("ws", Some(Tensor::scalar(0.25f32))), g.add_value("wz", Some(Tensor::scalar(0i8))));
        let (b, bs) = (g.add_value("b", Some(Tensor::vector(&[5i32, 9]))), g.add_value("bs", Some(Tensor::scalar(bias_scale))));
        let mut node = |op: &str, inputs: &[ValueId]| {
            let out = g.add_value("", None);
            g.nodes.push(Node::new("", op, 13, inputs.iter().copied().map(Some).collect(), vec![Some(out)]));
            out
        };
        let (x, w, b) =
            (node("DequantizeLinear", &[x, xs, xz]), node("DequantizeLinear", &[w, ws, wz]), node("DequantizeLinear", &[b, bs]));
        let y = node("Conv", &[x, w, b]);
        let y = node("QuantizeLinear", &[y, xs, xz]);
        g.outputs.push(Port { value: y, dtype: None, dims: None });
        g
    }

    #[test]
    fn a_convolution_between_quantised_tensors_becomes_an_integer_one() {
        let mut g = graph(0.125);
        assert_eq!(rewrite(&mut g), 1);
        let made = g.nodes.last().unwrap();
        assert_eq!((made.op.as_str(), made.inputs.len()), ("QLinearConv", 9));
        assert!(g.nodes.iter().all(|n| n.op != "Conv" && n.op != "QuantizeLinear"));
    }

    #[test]
    fn a_bias_of_another_scale_is_added_in_floats() {
        let mut g = graph(0.3);
        assert_eq!(rewrite(&mut g), 1);
        let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["ConvInteger", "Cast", "Mul", "Add", "QuantizeLinear"]);
        let constants = |at: usize| g.constant(g.nodes[at].inputs[1].unwrap()).unwrap().to_f64();
        assert_eq!((constants(2), constants(3)), (vec![0.125], vec![f64::from(5.0 * 0.3f32), f64::from(9.0 * 0.3f32)]));
    }
}
