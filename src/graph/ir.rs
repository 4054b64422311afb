//! The graph: nodes in topological order over values.

use std::collections::HashMap;

use super::{Attr, Attrs, OpDef, Site};
use crate::base::{DType, Mapped, Tensor};
use crate::scalar::Formula;

/// Index of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// Index of a value in [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// One size in a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(untagged))]
pub enum Dim {
    /// Known in the file.
    Known(usize),
    /// Named: equal names are meant to be equal sizes.
    Named(String),
    /// Nothing is said.
    Any,
}

/// What flows along an edge.
#[derive(Debug, Clone, Default)]
pub struct Value {
    /// The file's name, unique in its graph.
    pub name: String,
    /// Set for constants (initialisers, Constant nodes, folded values).
    pub constant: Option<Tensor>,
    /// Whether files hold the constant's i8 or u8 with 4 bits, two in a byte (INT4, UINT4).
    pub is_packed: bool,
}

/// An input or output of the whole graph.
#[derive(Debug, Clone)]
pub struct Port {
    /// The value that enters or leaves.
    pub value: ValueId,
    /// Declared element type, when the file says so.
    pub dtype: Option<DType>,
    /// Declared shape; `None` when not even the rank is said.
    pub dims: Option<Vec<Dim>>,
}

/// A scalar formula applied to each element of a node's first output.
#[derive(Debug, Clone)]
pub struct Epilogue {
    /// `arg(0)` is the node's own result, `arg(i)` is `inputs[i - 1]`.
    pub formula: Formula,
    /// Operands, each broadcast to the output's shape.
    pub inputs: Vec<ValueId>,
}

/// One operator applied to values.
#[derive(Debug, Clone)]
pub struct Node {
    /// The file's name, or one made from the operator and position.
    pub name: String,
    /// "" for ai.onnx, "com.microsoft", "halfbyte" for nodes made by passes.
    pub domain: String,
    /// Operator name.
    pub op: String,
    /// The operator's definition; `None` when the table has none (reported by [`super::ops`]' users, never guessed).
    pub def: Option<&'static OpDef>,
    /// Version of the operator set that the file imports for this domain.
    pub opset: i64,
    /// Inputs; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` where an optional one is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes as in the file.
    pub attrs: Attrs,
    /// Fused scalar work on output 0.
    pub epilogue: Option<Epilogue>,
}

impl Node {
    /// A node for the operator `domain`/`op` of the table, without epilogue.
    pub fn new(domain: &str, op: &str, opset: i64, inputs: Vec<Option<ValueId>>, outputs: Vec<Option<ValueId>>) -> Self {
        Node {
            name: String::new(),
            domain: domain.into(),
            op: op.into(),
            def: super::find(domain, op),
            opset,
            inputs,
            outputs,
            attrs: Attrs::new(),
            epilogue: None,
        }
    }

    /// Values read by the operator itself, its epilogue and (captured from outside) its subgraphs.
    pub fn uses(&self) -> Vec<ValueId> {
        let mut all: Vec<ValueId> = self.inputs.iter().flatten().copied().collect();
        all.extend(self.epilogue.iter().flat_map(|e| e.inputs.iter().copied()));
        for attr in self.attrs.values() {
            if let Attr::Graph(g) = attr {
                all.extend(g.captures.iter().map(|&(outer, _)| outer));
            }
        }
        all
    }

    /// `op` with its domain, for people.
    pub fn full_op(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}:{}", self.domain, self.op) }
    }
}

/// A graph whose nodes stand in topological order.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Name in the file.
    pub name: String,
    /// Nodes, each after those it reads from.
    pub nodes: Vec<Node>,
    /// Values.
    pub values: Vec<Value>,
    /// What the caller gives, in the file's order (initialisers that are also inputs come as optional ones, not here).
    pub inputs: Vec<Port>,
    /// Initialisers that the caller may override.
    pub optional_inputs: Vec<Port>,
    /// What the caller gets.
    pub outputs: Vec<Port>,
    /// Of a subgraph: (value of the enclosing graph, value in this one).
    pub captures: Vec<(ValueId, ValueId)>,
    /// The mapped files that constants, those of subgraphs too, may lie in.
    pub files: Vec<Mapped>,
}

impl Graph {
    /// Adds a value.
    pub fn add_value(&mut self, name: impl Into<String>, constant: Option<Tensor>) -> ValueId {
        self.values.push(Value { name: name.into(), constant, is_packed: false });
        ValueId(self.values.len() - 1)
    }

    /// The constant behind `id`, if it is one.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.values[id.0].constant.as_ref()
    }

    /// Bytes of all constants as files hold them, those of subgraphs too.
    pub fn constant_bytes(&self) -> usize {
        let bytes = |(bytes, is_packed): (usize, bool)| if is_packed { bytes.div_ceil(2) } else { bytes };
        let own: usize =
            self.values.iter().filter_map(|v| Some((v.constant.as_ref()?.bytes().len(), v.is_packed))).map(bytes).sum();
        let inner = |a: &Attr| if let Attr::Graph(inner) = a { inner.constant_bytes() } else { 0 };
        own + self.nodes.iter().flat_map(|n| n.attrs.values()).map(inner).sum::<usize>()
    }

    /// Which node makes each value.
    pub fn producers(&self) -> HashMap<ValueId, NodeId> {
        let made = |(i, n): (usize, &Node)| n.outputs.iter().flatten().map(move |&v| (v, i)).collect::<Vec<_>>();
        self.nodes.iter().enumerate().flat_map(made).collect()
    }

    /// A value that is read but that nothing makes: no valid graph has one.
    pub fn unmade(&self) -> Option<ValueId> {
        let mut made: Vec<bool> = self.values.iter().map(|v| v.constant.is_some()).collect();
        self.inputs.iter().for_each(|p| made[p.value.0] = true);
        self.captures.iter().for_each(|(_, own)| made[own.0] = true);
        self.nodes.iter().flat_map(|n| n.outputs.iter().flatten()).for_each(|v| made[v.0] = true);
        let mut read = self.nodes.iter().flat_map(|n| n.uses()).chain(self.outputs.iter().map(|p| p.value));
        read.find(|v| !made[v.0])
    }

    /// How often each value is read, by nodes and as a graph output.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let read = self.nodes.iter().flat_map(|n| n.uses()).chain(self.outputs.iter().map(|p| p.value));
        for v in read {
            counts[v.0] += 1;
        }
        counts
    }
}

impl<'a> Site<'a> {
    /// An error that names the node.
    pub fn error(&self, why: impl Into<String>) -> crate::Error {
        crate::Error::Node { node: self.node.name.clone(), op: self.node.full_op(), why: why.into() }
    }
}
