//! Matrix products with constant weights become products with weights of lower precision, and convolutions with f16 weights.

use super::index::Index;
use super::pattern::{int, is_plain_product};
use super::pipeline::WeightPrecision;
use crate::base::DType;
use crate::graph::{Attr, Graph, Node, ValueId};

/// The largest finite f16.
const F16_MAX: f32 = 65504.0;

/// What became of the products with constant weights.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lowered {
    /// Those with weights of lower precision now.
    pub lowered: usize,
    /// Those with weights that the lower precision cannot hold.
    pub kept: usize,
}

/// Lowers the weights of MatMul and Gemm to `precision`, and those of Conv and ConvTranspose to f16 where that is it.
pub(super) fn lower(graph: &mut Graph, precision: WeightPrecision) -> Lowered {
    let index = Index::new(graph);
    let mut done = Lowered::default();
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let new = linear(graph, &index, node, precision).or_else(|| conv(graph, &index, node, precision));
        let Some(node) = new else { continue };
        let fits = node.inputs[1].is_some_and(|w| holds(graph, w, precision));
        if fits {
            graph.nodes[at] = node;
            done.lowered += 1;
        } else {
            done.kept += 1;
        }
    }
    done
}

/// Whether every weight is finite, and in range of f16 where it is asked for.
fn holds(graph: &Graph, weight: ValueId, precision: WeightPrecision) -> bool {
    let limit = if precision == WeightPrecision::F16 { F16_MAX } else { f32::MAX };
    let values = graph.constant(weight).and_then(|t| t.values::<f32>().ok());
    values.is_some_and(|v| v.iter().all(|w| w.abs() <= limit))
}

/// The node as halfbyte:Linear, if it is a product of f32 with a constant matrix.
fn linear(graph: &Graph, index: &Index, node: &Node, precision: WeightPrecision) -> Option<Node> {
    let weight = index.constant(graph, node.inputs.get(1).copied()?.filter(|_| is_plain_product(node))?)?;
    if weight.dtype() != DType::F32 || weight.shape().rank() != 2 || weight.numel() == 0 {
        return None;
    }
    let mut new = Node::new("halfbyte", "Linear", 1, node.inputs.clone(), node.outputs.clone());
    new.def?;
    new.name = node.name.clone();
    new.epilogue = node.epilogue.clone();
    let name = if precision == WeightPrecision::F16 { "f16" } else { "int8" };
    new.attrs.insert("weight_precision".into(), Attr::Str(name.into()));
    if int(node, "transB", 0) != 0 {
        new.attrs.insert("transB".into(), Attr::Int(1));
    }
    Some(new)
}

/// The node with f16 weights, if it is a convolution of f32 with constant ones. Eight bits would need the image's range, which is
/// not known ahead: those convolutions stay.
fn conv(graph: &Graph, index: &Index, node: &Node, precision: WeightPrecision) -> Option<Node> {
    let float = node.domain.is_empty() && matches!(node.op.as_str(), "Conv" | "ConvTranspose");
    if !float || precision != WeightPrecision::F16 || node.attrs.contains_key("weight_precision") {
        return None;
    }
    let weight = index.constant(graph, node.inputs.get(1).copied()??)?;
    let mut new = node.clone();
    new.attrs.insert("weight_precision".into(), Attr::Str("f16".into()));
    (weight.dtype() == DType::F32 && weight.numel() > 0).then_some(new)
}
