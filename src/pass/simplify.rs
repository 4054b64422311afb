//! Removes nodes that do nothing, and nodes that nobody reads.

use super::index::{Index, substitute};
use crate::graph::{Attr, Graph, Node, Port, ValueId};

/// Removes nodes that only pass their input on. Those that make a graph's output stay: it keeps its name.
pub(super) fn remove(graph: &mut Graph) -> usize {
    let index = Index::new(graph);
    let mut to = vec![None; graph.values.len()];
    let mut gone = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let (Some(Some(x)), Some(Some(y))) = (node.inputs.first(), node.outputs.first()) else { continue };
        let leaves = graph.outputs.iter().any(|p| p.value == *y);
        let others_read = node.outputs.iter().skip(1).flatten().any(|&v| index.uses(v) > 0);
        if node.epilogue.is_none() && !leaves && !others_read && passes_on(graph, &index, node) {
            to[y.0] = Some(*x);
            gone[i] = true;
        }
    }
    substitute(graph, &to);
    let count = gone.iter().filter(|&&g| g).count();
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
    count
}

/// Whether output 0 is input 0.
fn passes_on(graph: &Graph, index: &Index, node: &Node) -> bool {
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    // Rank 0 only: a constant of one axis would lift a scalar.
    let is = |i: usize, number: f64| {
        let rank0 = input(i).filter(|&v| index.constant(graph, v).is_some_and(|t| t.shape().rank() == 0));
        rank0.and_then(|v| index.scalar(graph, v)) == Some(number)
    };
    match (node.domain.as_str(), node.op.as_str()) {
        ("", "Identity") => true,
        ("", "Dropout") => input(2).is_none_or(|v| index.scalar(graph, v) == Some(0.0)),
        ("", "Cast") => input(0).is_some_and(|x| {
            let from = dtype_number(graph, index, x);
            from.is_some() && from == to_number(node)
        }),
        ("", "Transpose") => match node.attrs.get("perm") {
            Some(Attr::Ints(perm)) => perm.iter().copied().eq(0..perm.len() as i64),
            _ => false,
        },
        ("", "Mul" | "Div") => is(1, 1.0),
        ("", "Concat" | "Sum" | "Max" | "Min" | "Mean") => node.inputs.len() == 1,
        _ => false,
    }
}

fn to_number(node: &Node) -> Option<i64> {
    match node.attrs.get("to") {
        Some(Attr::Int(to)) => Some(*to),
        _ => None,
    }
}

/// Element type of `v` as onnx.proto numbers it, where it can be told without the types of the whole graph.
fn dtype_number(graph: &Graph, index: &Index, v: ValueId) -> Option<i64> {
    if let Some(node) = index.producer(v).map(|n| &graph.nodes[n]) {
        return match (node.domain.as_str(), node.op.as_str()) {
            ("", "Cast") => to_number(node),
            ("", "Shape" | "Size" | "NonZero") => Some(7),
            ("", "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Not") => Some(9),
            _ => None,
        };
    }
    let declared = |p: &Port| if p.value == v { p.dtype } else { None };
    let dtype = graph.constant(v).map(|t| t.dtype()).or_else(|| graph.inputs.iter().find_map(declared))?;
    Some(dtype.onnx().into())
}

/// Drops nodes, captures and constants that nobody reads; counts the nodes.
pub(super) fn drop_unused(graph: &mut Graph) -> usize {
    let mut read = vec![false; graph.values.len()];
    graph.outputs.iter().for_each(|p| read[p.value.0] = true);
    let mut keep = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        keep[i] = node.outputs.iter().flatten().any(|v| read[v.0]);
        if keep[i] {
            node.uses().into_iter().for_each(|v| read[v.0] = true);
        }
    }
    graph.captures.retain(|(_, own)| read[own.0]);
    graph.optional_inputs.iter().for_each(|p| read[p.value.0] = true);
    for (value, _) in graph.values.iter_mut().zip(&read).filter(|(_, read)| !**read) {
        value.constant = None;
    }
    let before = graph.nodes.len();
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
    before - graph.nodes.len()
}
