//! Equal constants and equal nodes are kept once.

use std::collections::HashMap;
use std::fmt::Write;

use super::index::substitute;
use crate::base::{DType, Shape};
use crate::graph::{Attr, Graph, Lower, Node, ValueId};

/// Constants up to this size are compared by their elements.
const SMALL_BYTES: usize = 1024;

/// Operators that give something else each time.
const RANDOM: [&str; 6] = ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"];

/// Reads the first of equal small constants in place of the others; gives how many are left unread by it. Zero points by channel stay each
/// layer's own: ONNX Runtime 1.31 with exact products refuses a file whose layers share one ("Attempt to replace the existing tensor").
pub(super) fn constants(graph: &mut Graph) -> usize {
    let mut to = vec![None; graph.values.len()];
    let mut first: HashMap<(DType, Shape, Vec<u8>), ValueId> = HashMap::new();
    let mut special = vec![false; graph.values.len()];
    graph.optional_inputs.iter().chain(&graph.outputs).for_each(|p| special[p.value.0] = true);
    let mut count = 0;
    for (i, value) in graph.values.iter().enumerate() {
        let small = value.constant.as_ref().filter(|t| t.bytes().len() <= SMALL_BYTES && !special[i] && !value.is_packed);
        let Some(t) = small.filter(|t| t.dtype() != DType::I8 || t.shape().rank() == 0) else { continue };
        let kept = *first.entry((t.dtype(), t.shape().clone(), t.bytes().to_vec())).or_insert(ValueId(i));
        if kept.0 != i {
            to[i] = Some(kept);
            count += 1;
        }
    }
    substitute(graph, &to);
    count
}

/// Removes nodes that compute what an earlier one does.
pub(super) fn nodes(graph: &mut Graph) -> usize {
    let mut to: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut gone = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let Some(key) = key(node, &to) else { continue };
        let kept = &graph.nodes[*first.entry(key).or_insert(i)];
        let pairs: Vec<_> = node.outputs.iter().zip(&kept.outputs).collect();
        let covered = node.outputs.len() == kept.outputs.len() && pairs.iter().all(|(own, of)| own.is_none() || of.is_some());
        let leaves = node.outputs.iter().flatten().any(|v| graph.outputs.iter().any(|p| p.value == *v));
        if std::ptr::eq(node, kept) || !covered || leaves {
            continue;
        }
        for (own, of) in pairs {
            if let (Some(own), Some(of)) = (own, of) {
                to[own.0] = Some(*of);
            }
        }
        gone[i] = true;
    }
    substitute(graph, &to);
    let count = gone.iter().filter(|&&g| g).count();
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
    count
}

/// Equal for nodes that compute the same; `None` for those that are not compared.
fn key(node: &Node, to: &[Option<ValueId>]) -> Option<String> {
    let control = node.def.is_none_or(|d| matches!(d.lower, Lower::Control));
    if control || node.epilogue.is_some() || RANDOM.contains(&node.op.as_str()) {
        return None;
    }
    let mut key = format!("{}:{}@{}", node.domain, node.op, node.opset);
    for v in &node.inputs {
        // Earlier nodes are decided already, so one step leads to the node that is kept.
        let v = v.map(|v| to[v.0].unwrap_or(v).0);
        write!(key, ",{v:?}").ok()?;
    }
    for (name, attr) in &node.attrs {
        match attr {
            Attr::Tensor(t) if t.bytes().len() <= SMALL_BYTES => write!(key, ";{name}={t:?}{:?}", t.bytes()),
            Attr::Tensor(_) | Attr::Graph(_) | Attr::Formula(_) => return None,
            other => write!(key, ";{name}={other:?}"),
        }
        .ok()?;
    }
    Some(key)
}
