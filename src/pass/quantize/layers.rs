//! The nodes that can be quantised.

use crate::base::{DType, Tensor};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::pass::index::Index;
use crate::pass::pattern::{float, int};

/// What a layer does with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Kind {
    /// MatMul or Gemm with weights `[k, n]`.
    Product,
    /// Gemm with weights `[n, k]`.
    TransposedProduct,
    /// Conv with weights `[m, c / groups, taps..]`.
    Conv,
    /// Gather or Slice of rows of a table `[.., width]`.
    Table,
}

/// A node with constant f32 weights.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where it stands in the graph.
    pub node: NodeId,
    /// The node's name.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// What it reads besides weights.
    pub input: ValueId,
    /// Its weights.
    pub weight: ValueId,
}

/// All of them, in the graph's order; those of subgraphs are left alone.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    let index = Index::new(graph);
    graph.nodes.iter().enumerate().filter_map(|(at, node)| layer(graph, &index, at, node)).collect()
}

fn layer(graph: &Graph, index: &Index, at: NodeId, node: &Node) -> Option<Layer> {
    let plain = |n: &Node| float(n, "alpha", 1.0) == 1.0 && float(n, "beta", 1.0) == 1.0 && int(n, "transA", 0) == 0;
    let (kind, input, weight) = match node.op.as_str() {
        _ if !node.domain.is_empty() || node.epilogue.is_some() => return None,
        "MatMul" => (Kind::Product, 0, 1),
        "Gemm" if plain(node) && int(node, "transB", 0) != 0 => (Kind::TransposedProduct, 0, 1),
        "Gemm" if plain(node) => (Kind::Product, 0, 1),
        "Conv" => (Kind::Conv, 0, 1),
        "Gather" if int(node, "axis", 0) == 0 => (Kind::Table, 1, 0),
        "Slice" if takes_whole_rows(graph, index, node) => (Kind::Table, 2, 0),
        _ => return None,
    };
    let value = |i: usize| node.inputs.get(i).copied().flatten();
    let (input, weight) = (value(input)?, value(weight)?);
    let w = index.constant(graph, weight)?;
    let rank = w.shape().rank();
    let fits = match kind {
        Kind::Conv => rank >= 3,
        Kind::Table => rank >= 2,
        _ => rank == 2,
    };
    let is_data = index.constant(graph, input).is_none();
    let usable = fits && is_data && w.dtype() == DType::F32 && w.numel() > 0 && is_finite(w);
    usable.then(|| Layer { node: at, name: node.name.clone(), kind, input, weight })
}

/// Whether a Slice by inputs leaves the last axis whole.
fn takes_whole_rows(graph: &Graph, index: &Index, node: &Node) -> bool {
    let constant = |i: usize| node.inputs.get(i).copied().flatten().and_then(|v| index.constant(graph, v));
    let (Some(data), Some(axes)) = (constant(0), constant(3).and_then(Tensor::to_i64)) else { return false };
    let last = data.shape().rank() as i64 - 1;
    axes.iter().all(|&a| a != -1 && a != last)
}

fn is_finite(t: &Tensor) -> bool {
    t.values::<f32>().is_ok_and(|v| v.iter().all(|w| w.is_finite()))
}
