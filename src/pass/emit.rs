//! Nodes that take the place of one.

use std::collections::HashMap;

use crate::base::Tensor;
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};

/// ONNX's numbers of element types, as Cast has them.
pub(super) const TO_F32: i64 = 1;
pub(super) const TO_I8: i64 = 3;
pub(super) const TO_I32: i64 = 6;

/// Makes the nodes that take the place of a node: of its operator set, under its name.
pub(super) struct Emit<'g> {
    graph: &'g mut Graph,
    nodes: Vec<Node>,
    name: String,
    opset: i64,
    output: Option<ValueId>,
}

impl<'g> Emit<'g> {
    /// In the place of `node`.
    pub fn new(graph: &'g mut Graph, node: &Node) -> Self {
        let output = node.outputs.first().copied().flatten();
        Emit { graph, nodes: Vec::new(), name: node.name.clone(), opset: node.opset, output }
    }

    /// A new constant.
    pub fn constant(&mut self, what: &str, value: Tensor) -> ValueId {
        let name = format!("{}/{what}", self.name);
        self.graph.add_value(name, Some(value))
    }

    /// The result of an ONNX operator.
    pub fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.with(op, inputs, [])
    }

    /// The result of an ONNX operator with attributes.
    pub fn with<const N: usize>(&mut self, op: &str, inputs: &[ValueId], attrs: [(&str, Attr); N]) -> ValueId {
        let attrs = attrs.map(|(name, attr)| (name.to_string(), attr));
        let node = Node::new("", op, self.opset, inputs.iter().copied().map(Some).collect(), Vec::new());
        self.node(Node { attrs: attrs.into(), ..node })
    }

    /// Elements of another type, by its number.
    pub fn cast(&mut self, v: ValueId, to: i64) -> ValueId {
        self.with("Cast", &[v], [("to", Attr::Int(to))])
    }

    /// The first result of a node whose name and outputs are given here.
    pub fn node(&mut self, node: Node) -> ValueId {
        let name = format!("{}/{}_{}", self.name, node.op, self.nodes.len());
        let out = self.graph.add_value(name.clone(), None);
        self.nodes.push(Node { name, outputs: vec![Some(out)], ..node });
        out
    }

    /// Largest or smallest element along the last axis, which stays as one of one element.
    pub fn along_rows(&mut self, op: &str, x: ValueId) -> ValueId {
        let keep = ("keepdims", Attr::Int(1));
        if self.opset < 18 {
            return self.with(op, &[x], [("axes", Attr::Ints(vec![-1])), keep]);
        }
        let axes = self.constant("axes", Tensor::vector(&[-1i64]));
        self.with(op, &[x, axes], [keep])
    }

    /// The nodes; the last one gives what the replaced one gave.
    pub fn done(mut self) -> Vec<Node> {
        if let Some(last) = self.nodes.last_mut() {
            last.outputs = vec![self.output];
        }
        self.nodes
    }
}

/// Puts nodes in the places of others.
pub(super) fn splice(graph: &mut Graph, mut made: HashMap<NodeId, Vec<Node>>) {
    let nodes = std::mem::take(&mut graph.nodes).into_iter().enumerate();
    graph.nodes = nodes.flat_map(|(at, node)| made.remove(&at).unwrap_or_else(|| vec![node])).collect();
}
