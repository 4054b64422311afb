//! Weights that a file stores in fewer bits than products compute with. Folding makes floats of them, which other passes know; afterwards the
//! products take what the file has, and widen it as they compute: the same bits from a half or a quarter of the memory.

use std::collections::HashMap;

use super::emit::TO_F32;
use super::index::Index;
use super::pattern::{int, is_plain_product};
use crate::base::{DType, Tensor};
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};

/// A matrix of f32 as the file has it.
#[derive(Debug, Clone)]
struct Stored {
    weights: Tensor,
    /// Of i8: the scales, and the axis that they lie along.
    scales: Option<(Tensor, usize)>,
}

/// Matrices that are to be folded to f32.
#[derive(Debug, Default)]
pub struct Narrow {
    to_be: Vec<(ValueId, Stored)>,
    /// By the address of what was folded, whichever value holds it by then.
    folded: HashMap<usize, Stored>,
}

impl Narrow {
    /// Those of a graph before folding.
    pub fn find(graph: &Graph) -> Narrow {
        let index = Index::new(graph);
        let found = |at: NodeId| {
            let out = graph.nodes[at].outputs.first().copied().flatten()?;
            Some((out, stored(graph, &index, &graph.nodes[at])?))
        };
        Narrow { to_be: (0..graph.nodes.len()).filter_map(found).collect(), ..Narrow::default() }
    }

    /// Notes what has been folded.
    pub fn locate(&mut self, graph: &Graph) {
        let found = |(v, stored): (ValueId, Stored)| Some((graph.constant(v)?.address(), stored));
        self.folded.extend(std::mem::take(&mut self.to_be).into_iter().filter_map(found));
    }

    /// Gives products their weights as they are stored; gives how many.
    pub fn restore(&self, graph: &mut Graph) -> usize {
        let mut values: HashMap<usize, [Option<ValueId>; 2]> = HashMap::new();
        let mut count = 0;
        for at in 0..graph.nodes.len() {
            let node = &graph.nodes[at];
            let Some(Some(weight)) = node.inputs.get(1).copied().filter(|_| is_plain_product(node)) else { continue };
            let Some(constant) = graph.constant(weight) else { continue };
            let (address, shape) = (constant.address(), constant.shape().clone());
            let transposed = int(node, "transB", 0) != 0;
            let Some(stored) = self.folded.get(&address).filter(|s| *s.weights.shape() == shape) else { continue };
            if stored.scales.as_ref().is_some_and(|(s, axis)| s.numel() > 1 && *axis != usize::from(!transposed)) {
                continue;
            }
            let [weights, scales] = *values.entry(address).or_insert_with(|| {
                let name = graph.values[weight.0].name.clone();
                let mut add = |what: &str, t: &Tensor| graph.add_value(format!("{name}/{what}"), Some(t.clone()));
                [Some(add("stored", &stored.weights)), stored.scales.as_ref().map(|(s, _)| add("scales", s))]
            });
            let node = &mut graph.nodes[at];
            let inputs = vec![node.inputs[0], weights, scales, node.inputs.get(2).copied().flatten()];
            let new = Node::new("halfbyte", "LinearStored", 1, inputs, node.outputs.clone());
            let attrs = if transposed { [("transB".to_string(), Attr::Int(1))].into() } else { Default::default() };
            *node = Node { name: node.name.clone(), epilogue: node.epilogue.clone(), attrs, ..new };
            count += 1;
        }
        let read = graph.use_counts();
        let is_left = |v: usize, t: &Tensor| read[v] == 0 && self.folded.contains_key(&t.address());
        for (v, value) in graph.values.iter_mut().enumerate() {
            value.constant.take_if(|t| is_left(v, t));
        }
        count
    }
}

/// What a Cast of 16 bits or a DequantizeLinear of i8 without zero points, of a constant matrix, makes f32 of.
fn stored(graph: &Graph, index: &Index, node: &Node) -> Option<Stored> {
    let constant = |i: usize| index.constant(graph, node.inputs.get(i).copied().flatten()?);
    let weights = constant(0).filter(|t| t.shape().rank() == 2 && node.domain.is_empty() && node.epilogue.is_none())?.clone();
    match (node.op.as_str(), weights.dtype()) {
        ("Cast", DType::F16 | DType::BF16) if int(node, "to", 0) == TO_F32 => Some(Stored { weights, scales: None }),
        ("DequantizeLinear", DType::I8) if !node.attrs.contains_key("block_size") => {
            let scales = constant(1).filter(|s| s.dtype() == DType::F32 && s.shape().rank() <= 1)?.clone();
            let axis = usize::try_from(int(node, "axis", 1).rem_euclid(2)).ok()?;
            let centred = node.inputs.len() < 3 || constant(2)?.to_f64().iter().all(|&z| z == 0.0);
            centred.then_some(Stored { weights, scales: Some((scales, axis)) })
        }
        _ => None,
    }
}
