//! Channel-wise factors and offsets after a convolution, transposed or not, become part of its weights and bias.

use super::index::Index;
use super::pattern::{float, int};
use crate::base::{DType, Shape, Tensor};
use crate::graph::{Graph, Node, NodeId, ValueId};

/// `y = factor * x + offset` for each channel.
struct Affine {
    factor: Vec<f64>,
    offset: Vec<f64>,
}

/// Folds BatchNormalization, Mul, Div, Add and Sub with constants into the Conv or ConvTranspose before them.
pub(super) fn fold(graph: &mut Graph) -> usize {
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in 0..graph.nodes.len() {
        if let Some((conv, node)) = folded(graph, &index, at) {
            index.replace(graph, at, node, &[conv]);
            count += 1;
        }
    }
    index.sweep(graph);
    count
}

/// The convolution that does the work of node `at` too, and the one it takes the place of.
fn folded(graph: &mut Graph, index: &Index, at: NodeId) -> Option<(NodeId, Node)> {
    let node = &graph.nodes[at];
    let commutes = matches!(node.op.as_str(), "Mul" | "Add");
    let folds = |n: &Node| matches!(n.op.as_str(), "Conv" | "ConvTranspose") && n.domain.is_empty();
    let is_conv = |v: ValueId| index.producer(v).filter(|&n| folds(&graph.nodes[n]));
    let sides = if commutes { 2 } else { 1 };
    let (side, conv) = (0..sides).find_map(|i| Some((i, is_conv(node.inputs.get(i).copied()??)?)))?;
    let conv_node = &graph.nodes[conv];
    let out = conv_node.outputs.first().copied()??;
    if !node.domain.is_empty() || index.uses(out) != 1 || conv_node.epilogue.is_some() || node.epilogue.is_some() {
        return None;
    }
    let constant = |v: &Option<ValueId>| v.and_then(|v| index.constant(graph, v)).filter(|t| t.dtype() == DType::F32);
    let weight = constant(conv_node.inputs.get(1)?)?;
    let bias = match conv_node.inputs.get(2) {
        Some(given @ Some(_)) => Some(constant(given)?),
        _ => None,
    };
    let rank = weight.shape().rank();
    let (channels, channel) = channels(conv_node, weight)?;
    let affine = match node.op.as_str() {
        "BatchNormalization" => batch_norm(node, channels, constant)?,
        op => elementwise(op, &per_channel(constant(node.inputs.get(1 - side)?)?, channels, rank)?)?,
    };
    let (weight, bias) = apply(&affine, weight, bias, channel)?;
    let mut new = conv_node.clone();
    new.outputs = vec![node.outputs.first().copied()?];
    let name = |graph: &Graph, i: usize| match conv_node_input(graph, conv, i) {
        Some(v) => graph.values[v.0].name.clone(),
        None => format!("{}/bias", graph.nodes[conv].name),
    };
    let (weight_name, bias_name) = (name(graph, 1), name(graph, 2));
    new.inputs.resize(3, None);
    new.inputs[1] = Some(graph.add_value(weight_name, Some(weight)));
    new.inputs[2] = Some(graph.add_value(bias_name, Some(bias)));
    Some((conv, new))
}

fn conv_node_input(graph: &Graph, conv: NodeId, i: usize) -> Option<ValueId> {
    graph.nodes[conv].inputs.get(i).copied().flatten()
}

fn batch_norm<'t>(node: &Node, channels: usize, constant: impl Fn(&Option<ValueId>) -> Option<&'t Tensor>) -> Option<Affine> {
    let training = int(node, "training_mode", 0) != 0 || node.outputs.iter().skip(1).any(|o| o.is_some());
    // Before operator set 9, `spatial` = 0 normalised each position by itself.
    if training || int(node, "spatial", 1) != 1 {
        return None;
    }
    let part = |i: usize| Some(constant(node.inputs.get(i)?)?.to_f64()).filter(|v| v.len() == channels);
    let (scale, shift, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let epsilon = f64::from(float(node, "epsilon", 1e-5));
    let factor: Vec<f64> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let offset = (0..channels).map(|c| shift[c] - mean[c] * factor[c]).collect();
    Some(Affine { factor, offset })
}

fn elementwise(op: &str, c: &[f64]) -> Option<Affine> {
    let (ones, zeros) = (vec![1.0; c.len()], vec![0.0; c.len()]);
    Some(match op {
        "Mul" => Affine { factor: c.to_vec(), offset: zeros },
        "Div" => Affine { factor: c.iter().map(|v| 1.0 / v).collect(), offset: zeros },
        "Add" => Affine { factor: ones, offset: c.to_vec() },
        "Sub" => Affine { factor: ones, offset: c.iter().map(|v| -v).collect() },
        _ => return None,
    })
}

/// One number for each channel of a constant that varies along the channel axis only and adds no axis.
fn per_channel(t: &Tensor, channels: usize, rank: usize) -> Option<Vec<f64>> {
    let shape = t.shape();
    if shape.rank() > rank {
        return None;
    }
    if t.numel() == 1 {
        return Some(vec![t.to_f64()[0]; channels]);
    }
    let lead = rank - shape.rank();
    let fits = shape.iter().enumerate().all(|(i, &d)| d == if i + lead == 1 { channels } else { 1 });
    fits.then(|| t.to_f64())
}

/// The output channels of a convolution, and the one that each of its weights belongs to. Those of ConvTranspose are
/// `[input channel][output channel of the group][taps]`.
fn channels(node: &Node, weight: &Tensor) -> Option<(usize, impl Fn(usize) -> usize)> {
    let groups = usize::try_from(int(node, "group", 1)).ok().filter(|&g| g > 0)?;
    let (&[inputs, own], taps) = (weight.shape().first_chunk()?, weight.shape().iter().skip(2).product::<usize>().max(1));
    let transposed = node.op == "ConvTranspose";
    let (all, each) = if transposed { (own * groups, (inputs / groups).max(1)) } else { (inputs, 1) };
    let channel = move |at: usize| {
        let (first, second) = (at / taps / own.max(1), at / taps % own.max(1));
        if transposed { first / each * own + second } else { first }
    };
    Some((all, channel))
}

/// Weights, each of its `channel`, and bias after the factors and offsets, unless they leave f32's range.
fn apply(affine: &Affine, weight: &Tensor, bias: Option<&Tensor>, channel: impl Fn(usize) -> usize) -> Option<(Tensor, Tensor)> {
    let channels = affine.factor.len();
    let bias = bias.map_or(vec![0.0; channels], |b| b.to_f64());
    let values = weight.values::<f32>().ok()?;
    if bias.len() != channels || values.is_empty() {
        return None;
    }
    let scaled: Vec<f32> = values.iter().enumerate().map(|(i, &w)| (f64::from(w) * affine.factor[channel(i)]) as f32).collect();
    let moved: Vec<f32> = (0..channels).map(|c| (bias[c] * affine.factor[c] + affine.offset[c]) as f32).collect();
    if !scaled.iter().chain(&moved).all(|v| v.is_finite()) {
        return None;
    }
    Some((Tensor::new(weight.shape().clone(), &scaled).ok()?, Tensor::new(Shape::from([channels]), &moved).ok()?))
}
