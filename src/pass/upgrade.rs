//! Graphs of older operator sets in terms of a newer one.

use std::collections::HashMap;

use super::emit::{Emit, splice};
use super::pattern::int;
use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, Node, NodeId};

/// The oldest operator set that graphs are taken from.
const FROM: i64 = 11;
/// Operators that change between sets 13 and 21 in ways that are not written here: they stay as they are.
const STAY: [&str; 3] = ["DFT", "GridSample", "GroupNormalization"];

/// Takes ONNX's own nodes, those of subgraphs too, to operator set `to` (13 to 21) where they are of 11 or later; newer ones stay. Source:
/// ONNX's changelog of operators. Errors for older ones.
pub fn upgrade(graph: &mut Graph, to: i64) -> Result<()> {
    let mut made: HashMap<NodeId, Vec<Node>> = HashMap::new();
    for at in 0..graph.nodes.len() {
        for attr in graph.nodes[at].attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                upgrade(inner, to)?;
            }
        }
        let node = &graph.nodes[at];
        if !node.domain.is_empty() || node.opset >= to || (node.opset >= 13 && STAY.contains(&node.op.as_str())) {
            continue;
        }
        if node.opset < FROM {
            let why = format!("operator set {} is older than {FROM}: convert the model to a newer one first", node.opset);
            return Err(Error::Unsupported { at: format!("node {} ({})", node.name, node.full_op()), why });
        }
        let node = node.clone();
        let nodes = newer(graph, node, to);
        made.insert(at, nodes);
    }
    splice(graph, made);
    Ok(())
}

fn newer(graph: &mut Graph, node: Node, to: i64) -> Vec<Node> {
    let from = node.opset;
    let mut node = Node { opset: to, ..node };
    match node.op.as_str() {
        "Squeeze" | "Unsqueeze" | "ReduceSum" if from < 13 => attribute_to_input(graph, &mut node, "axes"),
        "Split" => {
            if from < 13 {
                attribute_to_input(graph, &mut node, "split");
            }
            if from < 18 && to >= 18 && node.inputs.get(1).is_none_or(Option::is_none) {
                node.attrs.insert("num_outputs".into(), Attr::Int(node.outputs.len() as i64));
            }
        }
        "Dropout" if from < 12 => drop(node.attrs.remove("ratio")),
        "Softmax" | "LogSoftmax" | "Hardmax" if from < 13 && int(&node, "axis", 1) != -1 => return flattened(graph, &node),
        op if op.starts_with("Reduce") && op != "ReduceSum" && from < 18 && to >= 18 => {
            attribute_to_input(graph, &mut node, "axes");
        }
        _ => {}
    }
    vec![node]
}

fn attribute_to_input(graph: &mut Graph, node: &mut Node, name: &str) {
    if let Some(Attr::Ints(values)) = node.attrs.remove(name) {
        let value = graph.add_value(format!("{}/{name}", node.name), Some(Tensor::vector(&values)));
        node.inputs.resize(2, None);
        node.inputs[1] = Some(value);
    }
}

/// Until operator set 12, everything from the axis on was one row.
fn flattened(graph: &mut Graph, node: &Node) -> Vec<Node> {
    let Some(x) = node.inputs.first().copied().flatten() else { return vec![node.clone()] };
    let mut emit = Emit::new(graph, node);
    let shape = emit.op("Shape", &[x]);
    let flat = emit.with("Flatten", &[x], [("axis", Attr::Int(int(node, "axis", 1)))]);
    let y = emit.with(&node.op, &[flat], [("axis", Attr::Int(-1))]);
    emit.op("Reshape", &[y, shape]);
    emit.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Port, ValueId};

    fn graph(op: &str, opset: i64, attrs: &[(&str, Attr)]) -> Graph {
        let mut g = Graph::default();
        let (x, y) = (g.add_value("x", None), g.add_value("y", None));
        let attrs = attrs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
        g.nodes.push(Node { attrs, ..Node::new("", op, opset, vec![Some(x)], vec![Some(y)]) });
        g.outputs.push(Port { value: y, dtype: None, dims: None });
        g
    }

    #[test]
    fn attributes_become_inputs_and_flattening_is_spelt_out() {
        let mut g = graph("Unsqueeze", 11, &[("axes", Attr::Ints(vec![0, 2]))]);
        upgrade(&mut g, 13).unwrap();
        let axes = g.nodes[0].inputs[1].unwrap();
        assert_eq!((g.nodes[0].opset, g.constant(axes).unwrap().to_i64()), (13, Some(vec![0, 2])));
        let mut g = graph("Softmax", 12, &[]);
        upgrade(&mut g, 13).unwrap();
        let ops: Vec<(&str, i64)> = g.nodes.iter().map(|n| (n.op.as_str(), n.opset)).collect();
        assert_eq!(ops, [("Shape", 13), ("Flatten", 13), ("Softmax", 13), ("Reshape", 13)]);
        assert_eq!(g.nodes[3].outputs, [Some(ValueId(1))], "the graph's output is made");
        let mut g = graph("Softmax", 12, &[("axis", Attr::Int(-1))]);
        upgrade(&mut g, 13).unwrap();
        assert_eq!(g.nodes.len(), 1);
    }

    #[test]
    fn reductions_and_splits_go_to_21() {
        let mut g = graph("ReduceMean", 13, &[("axes", Attr::Ints(vec![-1]))]);
        upgrade(&mut g, 21).unwrap();
        let axes = g.nodes[0].inputs[1].unwrap();
        assert_eq!((g.nodes[0].opset, g.constant(axes).unwrap().to_i64()), (21, Some(vec![-1])));
        let mut g = graph("Split", 13, &[]);
        upgrade(&mut g, 21).unwrap();
        assert!(matches!(g.nodes[0].attrs["num_outputs"], Attr::Int(1)));
        let mut g = graph("GridSample", 16, &[]);
        upgrade(&mut g, 21).unwrap();
        assert_eq!(g.nodes[0].opset, 16);
    }

    #[test]
    fn newer_nodes_stay_and_older_ones_are_refused() {
        let mut g = graph("Softmax", 17, &[]);
        upgrade(&mut g, 13).unwrap();
        assert_eq!((g.nodes.len(), g.nodes[0].opset), (1, 17));
        let error = upgrade(&mut graph("Relu", 9, &[]), 13).unwrap_err().to_string();
        assert!(error.contains("operator set 9") && error.contains("convert"), "{error}");
    }
}
