//! Who makes and who reads each value, kept right while nodes are replaced.

use crate::base::Tensor;
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};

/// Producers, numbers of readers and true constants of a graph.
pub(super) struct Index {
    producer: Vec<Option<NodeId>>,
    uses: Vec<usize>,
    /// Optional inputs: what they hold may be overridden by the caller.
    overridable: Vec<bool>,
    dead: Vec<bool>,
}

impl Index {
    pub fn new(graph: &Graph) -> Self {
        let mut producer = vec![None; graph.values.len()];
        for (v, n) in graph.producers() {
            producer[v.0] = Some(n);
        }
        let mut overridable = vec![false; graph.values.len()];
        for port in &graph.optional_inputs {
            overridable[port.value.0] = true;
        }
        Index { producer, uses: graph.use_counts(), overridable, dead: vec![false; graph.nodes.len()] }
    }

    /// The node that makes `v`.
    pub fn producer(&self, v: ValueId) -> Option<NodeId> {
        self.producer.get(v.0).copied().flatten()
    }

    /// How often `v` is read.
    pub fn uses(&self, v: ValueId) -> usize {
        self.uses.get(v.0).copied().unwrap_or(0)
    }

    /// Whether the node has been replaced.
    pub fn is_dead(&self, node: NodeId) -> bool {
        self.dead[node]
    }

    /// The constant behind `v`, unless the caller may override it.
    pub fn constant<'g>(&self, graph: &'g Graph, v: ValueId) -> Option<&'g Tensor> {
        let overridable = self.overridable.get(v.0).copied().unwrap_or(false);
        graph.constant(v).filter(|_| !overridable)
    }

    /// The only element of a constant that adds no axis to a tensor of one axis or more.
    pub fn scalar(&self, graph: &Graph, v: ValueId) -> Option<f64> {
        let t = self.constant(graph, v).filter(|t| t.numel() == 1 && t.shape().rank() <= 1)?;
        t.to_f64().first().copied()
    }

    /// Puts `node`, which makes the outputs of node `at`, in its place, and removes `absorbed` nodes.
    pub fn replace(&mut self, graph: &mut Graph, at: NodeId, node: Node, absorbed: &[NodeId]) {
        self.uses.resize(graph.values.len(), 0);
        self.producer.resize(graph.values.len(), None);
        self.overridable.resize(graph.values.len(), false);
        for v in node.uses() {
            self.uses[v.0] += 1;
        }
        for &gone in absorbed.iter().filter(|&&n| n != at).chain([&at]) {
            for v in graph.nodes[gone].uses() {
                self.uses[v.0] -= 1;
            }
            for v in graph.nodes[gone].outputs.iter().flatten() {
                self.producer[v.0] = None;
            }
            self.dead[gone] = gone != at;
        }
        for v in node.outputs.iter().flatten() {
            self.producer[v.0] = Some(at);
        }
        graph.nodes[at] = node;
    }

    /// Takes the removed nodes out of the graph.
    pub fn sweep(self, graph: &mut Graph) {
        let mut dead = self.dead.into_iter();
        graph.nodes.retain(|_| !dead.next().unwrap_or(false));
    }
}

/// Reads `to[v]` wherever `v` was read. Chains of replacements must lead backwards in the order of nodes.
pub(super) fn substitute(graph: &mut Graph, to: &[Option<ValueId>]) {
    let target = |mut v: ValueId| {
        while let Some(next) = to[v.0] {
            v = next;
        }
        v
    };
    for node in &mut graph.nodes {
        let own = node.inputs.iter_mut().flatten();
        let epilogue = node.epilogue.iter_mut().flat_map(|e| e.inputs.iter_mut());
        own.chain(epilogue).for_each(|v| *v = target(*v));
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                inner.captures.iter_mut().for_each(|(outer, _)| *outer = target(*outer));
            }
        }
    }
}
