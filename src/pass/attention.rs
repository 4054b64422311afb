//! Softmax attention that exporters take apart, put together again.

use super::index::Index;
use super::pattern::{Match, Pattern, either, op, op_if, var};
use crate::graph::{Attr, Dim, Graph, Node, NodeId, ValueId};

const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const MASK: usize = 3;
const FACTOR: usize = 4;
const DIVISOR: usize = 5;

/// `softmax(q k * factor + mask) v` with all of rank 4 becomes halfbyte:Attention.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let pattern = pattern();
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in 0..graph.nodes.len() {
        let root = graph.nodes[at].op == "MatMul" && !index.is_dead(at);
        let Some(&Some(out)) = graph.nodes[at].outputs.first().filter(|_| root) else { continue };
        let Some(m) = pattern.find(graph, &index, out) else { continue };
        let Some(mut node) = build(graph, &index, &m, out) else { continue };
        node.name = graph.nodes[at].name.clone();
        index.replace(graph, at, node, &m.nodes);
        count += 1;
    }
    index.sweep(graph);
    count
}

fn pattern() -> Pattern {
    let product = op("MatMul", [var(Q), var(K)]);
    let scaled = either([product.clone() / Pattern::Scalar(DIVISOR), product.clone() * Pattern::Scalar(FACTOR), product]);
    let last = |n: &Node| match n.attrs.get("axis") {
        Some(Attr::Int(axis)) => matches!(axis, -1 | 3),
        _ => n.opset >= 13,
    };
    let masked = either([scaled.clone() + var(MASK), scaled]);
    op("MatMul", [op_if("Softmax", [masked], last), var(V)])
}

fn build(graph: &Graph, index: &Index, m: &Match, out: ValueId) -> Option<Node> {
    let (q, k, v) = (m.var(Q)?, m.var(K)?, m.var(V)?);
    let scalar = |i: usize| m.var(i).and_then(|v| index.scalar(graph, v));
    let scale = scalar(FACTOR).unwrap_or(1.0) / scalar(DIVISOR).unwrap_or(1.0);
    // A matrix product stretches batches and heads of one, which the fused operator does not do.
    let heads = [q, k, v].map(|x| lead(graph, index, x));
    let [Some(first), Some(second), Some(third)] = heads else { return None };
    if first != second || first != third {
        return None;
    }
    let mut inputs = vec![Some(q), Some(k), Some(v)];
    inputs.extend(m.var(MASK).map(Some));
    let mut node = Node::new("halfbyte", "Attention", 1, inputs, vec![Some(out)]);
    node.attrs.insert("scale".into(), Attr::Float(scale as f32));
    node.attrs.insert("k_transposed".into(), Attr::Int(1));
    node.def.map(|_| node)
}

/// Attention reads queries, keys and values, and writes its result, where Transposes would take them from `[batch, tokens, heads, head
/// size]` and back.
pub(super) fn tokens_first(graph: &mut Graph) -> usize {
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in 0..graph.nodes.len() {
        let Some(m) = swapped(graph, &index, at, &[0, 2, 1, 3]) else { continue };
        let Some(attention) = index.producer(m).filter(|_| index.uses(m) == 1) else { continue };
        let node = &graph.nodes[attention];
        if (node.domain.as_str(), node.op.as_str()) != ("halfbyte", "Attention") || node.attrs.contains_key("tokens_first") {
            continue;
        }
        let k_perm: &[i64] = if node.attrs.contains_key("k_transposed") { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] };
        let from = |i: usize, perm| swapped(graph, &index, index.producer(node.inputs[i]?)?, perm);
        let (Some(q), Some(k), Some(v)) = (from(0, &[0, 2, 1, 3]), from(1, k_perm), from(2, &[0, 2, 1, 3])) else { continue };
        let mut node = node.clone();
        node.inputs.splice(..3, [Some(q), Some(k), Some(v)]);
        node.outputs.clone_from(&graph.nodes[at].outputs);
        node.attrs.remove("k_transposed");
        node.attrs.insert("tokens_first".into(), Attr::Int(1));
        index.replace(graph, at, node, &[attention]);
        count += 1;
    }
    index.sweep(graph);
    count
}

/// What a node transposes in this order of axes.
fn swapped(graph: &Graph, index: &Index, at: NodeId, order: &[i64]) -> Option<ValueId> {
    let node = &graph.nodes[at];
    let asked = matches!(node.attrs.get("perm"), Some(Attr::Ints(perm)) if perm == order);
    let plain = node.op == "Transpose" && node.domain.is_empty() && node.epilogue.is_none() && !index.is_dead(at);
    node.inputs.first().copied().flatten().filter(|_| asked && plain)
}

/// A size that equals another only if they are the same in every run.
#[derive(Debug, Clone, PartialEq)]
enum Size {
    Known(i64),
    Named(String),
    /// Where the size comes from: the axis of an input of the graph, or an element that the graph computes.
    Of(ValueId, usize),
}

/// Batch and heads of a tensor of rank 4, as far as they can be traced.
fn lead(graph: &Graph, index: &Index, v: ValueId) -> Option<[Size; 2]> {
    let sizes = Trace { graph, index }.sizes(v, 0)?;
    let [batch, heads, _, _] = <[Option<Size>; 4]>::try_from(sizes).ok()?;
    Some([batch?, heads?])
}

struct Trace<'a> {
    graph: &'a Graph,
    index: &'a Index,
}

/// Nodes that are looked through on the way back.
const MAX_DEPTH: usize = 12;

impl Trace<'_> {
    /// The sizes of a value's axes where the rank is certain.
    fn sizes(&self, v: ValueId, depth: usize) -> Option<Vec<Option<Size>>> {
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(port) = self.graph.inputs.iter().find(|p| p.value == v) {
            let dim = |(i, d): (usize, &Dim)| match d {
                Dim::Known(n) => Some(Size::Known(*n as i64)),
                Dim::Named(name) => Some(Size::Named(name.clone())),
                Dim::Any => Some(Size::Of(v, i)),
            };
            return port.dims.as_ref().map(|d| d.iter().enumerate().map(dim).collect());
        }
        if let Some(t) = self.index.constant(self.graph, v) {
            return Some(t.shape().iter().map(|&n| Some(Size::Known(n as i64))).collect());
        }
        let at = self.index.producer(v)?;
        self.made_by(at, depth + 1)
    }

    fn made_by(&self, at: NodeId, depth: usize) -> Option<Vec<Option<Size>>> {
        let node = &self.graph.nodes[at];
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let scalar = |i: usize| input(i).is_some_and(|v| self.index.scalar(self.graph, v).is_some());
        match (node.domain.as_str(), node.op.as_str()) {
            ("", "Transpose") => {
                let Some(Attr::Ints(perm)) = node.attrs.get("perm") else { return None };
                let from = self.sizes(input(0)?, depth)?;
                perm.iter().map(|&p| from.get(usize::try_from(p).ok()?).cloned()).collect()
            }
            ("", "Reshape") if !matches!(node.attrs.get("allowzero"), Some(Attr::Int(1))) => {
                self.reshaped(input(0)?, input(1)?, depth)
            }
            ("", "Mul" | "Div" | "Add") if scalar(1) => self.sizes(input(0)?, depth),
            ("", "Mul" | "Add") if scalar(0) => self.sizes(input(1)?, depth),
            ("", "Sqrt" | "Cast" | "Identity" | "LayerNormalization" | "Softmax") => self.sizes(input(0)?, depth),
            ("halfbyte", "LoRA") => self.sizes(input(1)?, depth),
            ("", "Add") => self.with_bias(input(0)?, input(1)?, depth),
            ("", "MatMul") | ("halfbyte", "Linear" | "LinearInt8") => {
                let columns = self.index.constant(self.graph, input(1)?).filter(|t| t.shape().rank() == 2)?.shape()[1];
                let mut sizes = self.sizes(input(0)?, depth)?;
                *sizes.last_mut()? = Some(Size::Known(columns as i64));
                Some(sizes)
            }
            // Axis 0 and the rank survive; which of the others do is not followed.
            _ => None,
        }
    }

    /// A sum with a constant of one axis.
    fn with_bias(&self, a: ValueId, b: ValueId, depth: usize) -> Option<Vec<Option<Size>>> {
        let bias = |v| self.index.constant(self.graph, v).is_some_and(|t| t.shape().rank() == 1);
        if bias(a) {
            self.sizes(b, depth)
        } else if bias(b) {
            self.sizes(a, depth)
        } else {
            None
        }
    }

    /// The value that `v` is made from by steps that keep its first axis.
    fn origin(&self, mut v: ValueId) -> ValueId {
        while let Some(node) = self.index.producer(v).map(|n| &self.graph.nodes[n]) {
            let rank = |i: usize| {
                let given = node.inputs.get(i).copied().flatten();
                given.and_then(|v| self.index.constant(self.graph, v)).map(|t| t.shape().rank())
            };
            let next = match (node.domain.as_str(), node.op.as_str()) {
                ("", "MatMul") if rank(1) == Some(2) => 0,
                ("halfbyte", "Linear" | "LinearInt8") | ("", "LayerNormalization") => 0,
                ("halfbyte", "LoRA") => 1,
                ("", "Add") if rank(1) == Some(1) => 0,
                ("", "Add") if rank(0) == Some(1) => 1,
                _ => break,
            };
            let Some(before) = node.inputs[next] else { break };
            v = before;
        }
        v
    }

    /// The sizes that a Reshape asks for: constants, or a Concat of single numbers.
    fn reshaped(&self, from: ValueId, shape: ValueId, depth: usize) -> Option<Vec<Option<Size>>> {
        let asked: Vec<Option<Size>> = match self.index.constant(self.graph, shape) {
            Some(t) => t.to_i64()?.into_iter().map(|n| Some(Size::Known(n))).collect(),
            None => self.pieces(shape)?,
        };
        let source = self.sizes(from, depth).unwrap_or_default();
        let resolve = |(i, size): (usize, Option<Size>)| match size {
            Some(Size::Known(0)) => {
                let batch = (i == 0).then(|| Size::Of(self.origin(from), 0));
                source.get(i).cloned().flatten().or(batch)
            }
            Some(Size::Known(n)) if n < 0 => None,
            other => other,
        };
        Some(asked.into_iter().enumerate().map(resolve).collect())
    }

    fn pieces(&self, shape: ValueId) -> Option<Vec<Option<Size>>> {
        let concat = &self.graph.nodes[self.index.producer(shape)?];
        if concat.op != "Concat" {
            return None;
        }
        let piece = |v: &Option<ValueId>| {
            let v = (*v)?;
            if let Some(t) = self.index.constant(self.graph, v) {
                return (t.numel() == 1).then(|| t.to_i64()?.first().map(|&n| Some(Size::Known(n))))?;
            }
            // Unsqueeze of what one index picks is one number; the same value is the same number.
            let made = &self.graph.nodes[self.index.producer(v)?];
            let picked = &self.graph.nodes[self.index.producer(made.inputs.first().copied()??)?];
            let index = self.index.constant(self.graph, picked.inputs.get(1).copied()??)?;
            let one = made.op == "Unsqueeze" && picked.op == "Gather" && index.shape().rank() == 0;
            one.then_some(Some(Size::Of(v, 0)))
        };
        concat.inputs.iter().map(piece).collect()
    }
}
