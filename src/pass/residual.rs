//! Residual blocks: values that later have something added to them that was worked out from them.

use std::collections::HashSet;

use super::simplify::drop_unused;
use crate::base::Tensor;
use crate::error::Result;
use crate::graph::{Graph, Node, NodeId, ValueId};

/// What lies between a value and the sum that it goes into.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Name of the last node, the addition.
    pub name: String,
    /// What goes in.
    pub input: ValueId,
    /// What comes out.
    pub output: ValueId,
    /// Whether it is made of convolutions, so that channels are the second axis; else they are the last one.
    pub convolutional: bool,
}

/// A step of the residual stream.
struct Step {
    block: Block,
    /// Whether it mixes positions by attention.
    attends: bool,
}

/// The residual blocks of a graph in order, none inside another. In a graph with attention, a step with it and the steps after it up to the
/// next such one are one block, as a transformer's layers are.
pub fn blocks(graph: &Graph) -> Vec<Block> {
    let mut steps: Vec<Step> = Vec::new();
    let mut behind = 0;
    for (at, node) in graph.nodes.iter().enumerate() {
        let Some((step, first)) = step(graph, at, node) else { continue };
        // What spans an earlier step is a long connection, not a block.
        if first >= behind {
            steps.push(step);
            behind = at;
        }
    }
    let transformer = steps.iter().any(|s| s.attends);
    let mut blocks: Vec<Block> = Vec::new();
    for Step { block, attends } in steps {
        match blocks.last_mut() {
            Some(last) if transformer && !attends && last.output == block.input => {
                (last.output, last.name) = (block.output, block.name);
            }
            _ => blocks.push(block),
        }
    }
    blocks
}

/// The step that ends in an addition, and the first node of its branch.
fn step(graph: &Graph, at: NodeId, node: &Node) -> Option<(Step, NodeId)> {
    let [Some(a), Some(b)] = node.inputs[..] else { return None };
    if node.op != "Add" || !node.domain.is_empty() || node.epilogue.is_some() {
        return None;
    }
    let (input, branch) =
        [(a, b), (b, a)].into_iter().find_map(|(skip, other)| Some((skip, between(graph, at, skip, other)?)))?;
    let has = |ops: &[&str]| branch.iter().any(|&n| ops.contains(&graph.nodes[n].op.as_str()));
    let convolutional = has(&["Conv"]) && !has(&["LayerNormalization", "MatMul"]);
    let block = Block { name: node.name.clone(), input, output: node.outputs[0]?, convolutional };
    let attends = has(&["Softmax", "Attention", "MultiHeadAttention"]);
    Some((Step { block, attends }, *branch.first()?))
}

/// The nodes on the ways from one value to another, in order, sizes aside; `None` when there is no way or no layer on it.
fn between(graph: &Graph, end: NodeId, from: ValueId, to: ValueId) -> Option<Vec<NodeId>> {
    graph.constant(from).is_none().then_some(())?;
    let nodes = &graph.nodes[..end];
    let mut after: HashSet<ValueId> = HashSet::from([from]);
    let mut ways = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        if !matches!(node.op.as_str(), "Shape" | "Size") && node.uses().iter().any(|v| after.contains(v)) {
            after.extend(node.outputs.iter().flatten());
            ways.push(at);
        }
    }
    let mut needed: HashSet<ValueId> = HashSet::from([to]);
    ways.retain(|_| after.contains(&to));
    let mut branch: Vec<NodeId> = Vec::new();
    for &at in ways.iter().rev() {
        if nodes[at].outputs.iter().flatten().any(|v| needed.contains(v)) {
            needed.extend(nodes[at].uses());
            branch.push(at);
        }
    }
    branch.reverse();
    let layer = |&n: &NodeId| matches!(nodes[n].op.as_str(), "Conv" | "MatMul" | "Gemm");
    branch.iter().any(layer).then_some(branch)
}

/// Puts `y = M x + offset` in the place of a block, for each position by itself: weights [inputs x outputs] and offset `[outputs]`; removes what
/// nobody reads any more.
pub fn replace(graph: &mut Graph, block: &Block, weights: &[f32], offset: &[f32]) -> Result<()> {
    let c = offset.len();
    let Some(at) = graph.nodes.iter().position(|n| n.outputs.contains(&Some(block.output))) else { return Ok(()) };
    let opset = graph.nodes[at].opset;
    let offset = Tensor::vector(offset);
    let new = if block.convolutional {
        let weights = super::layer::transposed(weights, c, c);
        let inputs = [("weight", Tensor::new([c, c, 1, 1], &weights)?), ("bias", offset)];
        let inputs = inputs.map(|(name, t)| Some(graph.add_value(format!("{}/affine/{name}", block.name), Some(t))));
        vec![Node::new("", "Conv", opset, [Some(block.input)].into_iter().chain(inputs).collect(), vec![Some(block.output)])]
    } else {
        let mut add = |name: &str, t: Option<Tensor>| Some(graph.add_value(format!("{}/affine/{name}", block.name), t));
        let (weights, offset) = (add("weight", Some(Tensor::new([c, c], weights)?)), add("bias", Some(offset)));
        let product = add("product", None);
        vec![
            Node::new("", "MatMul", opset, vec![Some(block.input), weights], vec![product]),
            Node::new("", "Add", opset, vec![product, offset], vec![Some(block.output)]),
        ]
    };
    let named = |mut node: Node| {
        node.name = format!("{}/affine/{}", block.name, node.op);
        node
    };
    graph.nodes.splice(at..=at, new.into_iter().map(named));
    drop_unused(graph);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x -> MatMul (-> Softmax) -> + x, so many times; a longer connection around all of it.
    fn stream(attends: &[bool]) -> (Graph, Vec<ValueId>) {
        let mut graph = Graph::default();
        let weight = graph.add_value("w", Some(Tensor::new([2, 2], &[1f32, 0.0, 0.0, 1.0]).unwrap()));
        let mut values = vec![graph.add_value("x", None)];
        let add = |graph: &mut Graph, op: &str, inputs: &[ValueId]| {
            let y = graph.add_value(format!("{op}{}", graph.nodes.len()), None);
            let mut node = Node::new("", op, 17, inputs.iter().map(|&v| Some(v)).collect(), vec![Some(y)]);
            node.name = format!("n{}", graph.nodes.len());
            graph.nodes.push(node);
            y
        };
        for &attends in attends {
            let x = values[values.len() - 1];
            let mut branch = add(&mut graph, "MatMul", &[x, weight]);
            if attends {
                branch = add(&mut graph, "Softmax", &[branch]);
            }
            values.push(add(&mut graph, "Add", &[branch, x]));
        }
        let (first, last) = (values[0], values[values.len() - 1]);
        let out = add(&mut graph, "Add", &[first, last]);
        graph.outputs.push(crate::graph::Port { value: out, dtype: None, dims: None });
        (graph, values)
    }

    #[test]
    fn a_transformers_steps_join_and_long_connections_are_none() {
        let ends = |attends: &[bool]| -> Vec<(usize, usize)> {
            let (graph, values) = stream(attends);
            let at = |v: ValueId| values.iter().position(|&w| w == v).unwrap();
            blocks(&graph).iter().map(|b| (at(b.input), at(b.output))).collect()
        };
        assert_eq!(ends(&[true, false, true, false]), [(0, 2), (2, 4)]);
        assert_eq!(ends(&[false, false, false]), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(ends(&[true, true]), [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_replaced_block_is_gone_and_the_rest_stays() {
        let (mut graph, values) = stream(&[true, false, true, false]);
        let block = blocks(&graph)[0].clone();
        replace(&mut graph, &block, &[1.0, 2.0, 3.0, 4.0], &[0.5, 0.25]).unwrap();
        let ops: Vec<&str> = graph.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["MatMul", "Add", "MatMul", "Softmax", "Add", "MatMul", "Add", "Add"]);
        assert_eq!((graph.nodes[0].inputs[0], graph.nodes[1].outputs[0]), (Some(values[0]), Some(values[2])));
        assert_eq!(blocks(&graph).len(), 1, "the map is no block");
    }
}
