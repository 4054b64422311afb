//! Factors of channels taken into the constants of what makes the channels.

use crate::base::{DType, Tensor};
use crate::error::Result;
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};
use crate::pass::index::{Index, substitute};

/// Where `to` is a value times a constant for each channel, and what makes the value can take the constant in, it does: a normalisation, a
/// product or a sum with a bias, behind a ReLU or attention too. Readers that add the value to something (residual connections) get it back
/// by a product with the reciprocals, which costs no pass over memory of its own, since it is fused into the addition.
pub(super) fn absorb(graph: &mut Graph, to: ValueId) -> Result<()> {
    let index = Index::new(graph);
    let Some(at) = index.producer(to) else { return Ok(()) };
    let [Some(value), Some(factors)] = graph.nodes[at].inputs[..] else { return Ok(()) };
    let Some(row) = index.constant(graph, factors).cloned() else { return Ok(()) };
    let mut places = Vec::new();
    if graph.outputs.iter().any(|p| p.value == value) || !found(graph, &index, value, row.numel(), &mut places) {
        return Ok(());
    }
    let reads = |(other, node): &(NodeId, &Node)| *other != at && node.uses().contains(&value);
    let others: Vec<&Node> = graph.nodes.iter().enumerate().filter(reads).map(|(_, node)| node).collect();
    let normalised = index.producer(value).is_some_and(|n| graph.nodes[n].op == "LayerNormalization");
    let added = others.iter().all(|n| n.op == "Add" && n.domain.is_empty());
    let is_alone = others.is_empty();
    if !(is_alone || normalised && added) {
        return Ok(());
    }
    let row = row.to_f64();
    for (node, input) in places {
        let name = format!("{}/smoothed_{input}", graph.nodes[node].name);
        let Some(constant) = graph.nodes[node].inputs[input].and_then(|v| graph.constant(v)) else { continue };
        let scaled: Vec<f32> = constant.to_f64().iter().zip(row.iter().cycle()).map(|(c, f)| (c * f) as f32).collect();
        let scaled = Tensor::new(constant.shape().clone(), &scaled)?;
        let scaled = graph.add_value(name, Some(scaled));
        graph.nodes[node].inputs[input] = Some(scaled);
    }
    let mut back = graph.nodes.remove(at);
    if !is_alone {
        let reciprocals: Vec<f32> = row.iter().map(|f| (1.0 / f) as f32).collect();
        let unsmoothed = graph.add_value(format!("{}/unsmoothed", graph.values[value.0].name), None);
        for input in graph.nodes.iter_mut().filter(|n| n.op == "Add").flat_map(|n| &mut n.inputs) {
            *input = input.map(|v| if v == value { unsmoothed } else { v });
        }
        let reciprocals =
            graph.add_value(format!("{}/reciprocals", graph.values[value.0].name), Some(Tensor::vector(&reciprocals)));
        back.inputs[1] = Some(reciprocals);
        back.outputs[0] = Some(unsmoothed);
        let made = graph.nodes.iter().position(|n| n.outputs.contains(&Some(value)));
        graph.nodes.insert(made.map_or(0, |n| n + 1), back);
    }
    let mut instead = vec![None; graph.values.len()];
    instead[to.0] = Some(value);
    substitute(graph, &instead);
    Ok(())
}

/// The constants, by node and input, that multiply all of `value`'s channels, the last axis, when their own last axis is multiplied. Whether there are such.
fn found(graph: &Graph, index: &Index, value: ValueId, channels: usize, places: &mut Vec<(NodeId, usize)>) -> bool {
    let Some(at) = index.producer(value) else { return false };
    let node = &graph.nodes[at];
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let constant = |i: usize| input(i).and_then(|v| index.constant(graph, v)).filter(|t| t.dtype() == DType::F32);
    let row = |i: usize| constant(i).is_some_and(|t| t.shape()[..] == [channels]);
    // A step back, to what only this node reads.
    let mut before = |v: Option<ValueId>| v.is_some_and(|v| index.uses(v) == 1 && found(graph, index, v, channels, places));
    match node.op.as_str() {
        _ if !node.domain.is_empty() || node.epilogue.is_some() || node.outputs.iter().flatten().count() != 1 => false,
        "LayerNormalization" if row(1) && (input(2).is_none() || row(2)) => {
            places.extend((1..=2).filter(|&i| input(i).is_some()).map(|i| (at, i)));
            true
        }
        "MatMul" if constant(1).is_some_and(|t| t.shape().rank() == 2 && t.shape()[1] == channels) => {
            places.push((at, 1));
            true
        }
        "Add" if row(0) != row(1) => {
            let bias = usize::from(row(1));
            let made = before(input(1 - bias));
            places.extend(made.then_some((at, bias)));
            made
        }
        "Relu" => before(input(0)),
        "Reshape" => before(heads(graph, index, node, channels)),
        _ => false,
    }
}

/// The values `[batch, positions, channels]` of attention that a Reshape joins heads of, each channel where it lay.
fn heads(graph: &Graph, index: &Index, join: &Node, channels: usize) -> Option<ValueId> {
    // What makes the input of a node, which alone reads it.
    let maker = |node: &Node, input: usize, op: &str| {
        let value = node.inputs.get(input).copied().flatten().filter(|&v| index.uses(v) == 1)?;
        let made = &graph.nodes[index.producer(value)?];
        (made.op == op && made.domain.is_empty()).then(|| made.clone())
    };
    let turned = |n: &Node| matches!(n.attrs.get("perm"), Some(Attr::Ints(perm)) if perm[..] == [0, 2, 1, 3]);
    let shape = |n: &Node| index.constant(graph, n.inputs.get(1).copied()??)?.to_i64();
    let weighted = maker(&maker(join, 0, "Transpose").filter(turned)?, 0, "MatMul")?;
    let split = maker(&maker(&weighted, 1, "Transpose").filter(turned)?, 0, "Reshape")?;
    let [_, _, joined] = shape(join)?[..] else { return None };
    let [_, _, count, size] = shape(&split)?[..] else { return None };
    (joined == channels as i64 && count > 0 && size > 0 && count * size == joined).then_some(split.inputs[0])?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Port;

    struct Net(Graph);

    impl Net {
        fn constant<T: crate::base::Element>(&mut self, shape: &[usize], values: &[T]) -> ValueId {
            let name = format!("c{}", self.0.values.len());
            self.0.add_value(name, Some(Tensor::new(shape, values).unwrap()))
        }

        fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
            let out = self.0.add_value(format!("v{}", self.0.values.len()), None);
            let mut node = Node::new("", op, 17, inputs.iter().copied().map(Some).collect(), vec![Some(out)]);
            node.name = format!("{op}{}", self.0.nodes.len());
            if op == "Transpose" {
                node.attrs.insert("perm".into(), Attr::Ints(vec![0, 2, 1, 3]));
            }
            self.0.nodes.push(node);
            out
        }

        /// `value` by factors 1, 2, 4, 8, and the product that reads it.
        fn smoothed(&mut self, value: ValueId) -> [ValueId; 2] {
            let factors = self.constant(&[4], &[1f32, 2.0, 4.0, 8.0]);
            let weights = self.constant(&[4, 4], &[1f32; 16]);
            let by = self.op("Mul", &[value, factors]);
            [by, self.op("MatMul", &[by, weights])]
        }

        fn ops(&self) -> Vec<&str> {
            self.0.nodes.iter().map(|n| n.op.as_str()).collect()
        }

        /// What a constant input of a node holds.
        fn holds(&self, node: usize, input: usize) -> Vec<f64> {
            self.0.constant(self.0.nodes[node].inputs[input].unwrap()).unwrap().to_f64()
        }
    }

    #[test]
    fn normalisations_take_factors_in_and_residuals_get_them_back() {
        let mut net = Net(Graph::default());
        let x = net.0.add_value("x", None);
        let (scale, bias) = (net.constant(&[4], &[1f32, 1.0, 1.0, 3.0]), net.constant(&[4], &[0f32, 1.0, 1.0, 1.0]));
        let y = net.op("LayerNormalization", &[x, scale, bias]);
        let [by, product] = net.smoothed(y);
        let sum = net.op("Add", &[product, y]);
        absorb(&mut net.0, by).unwrap();
        assert_eq!(net.ops(), ["LayerNormalization", "Mul", "MatMul", "Add"]);
        assert_eq!((net.holds(0, 1), net.holds(0, 2)), (vec![1.0, 2.0, 4.0, 24.0], vec![0.0, 2.0, 4.0, 8.0]));
        assert_eq!(net.holds(1, 1), [1.0, 0.5, 0.25, 0.125]);
        let [_, back, product, add] = &net.0.nodes[..] else { unreachable!() };
        assert_eq!((back.inputs[0], product.inputs[0], add.inputs[1]), (Some(y), Some(y), back.outputs[0]));
        assert_eq!(add.outputs[0], Some(sum));
    }

    /// Attention over `value` = x W + b, of `heads` heads.
    fn attention(heads: i64) -> (Net, ValueId) {
        let mut net = Net(Graph::default());
        let [x, p] = ["x", "p"].map(|name| net.0.add_value(name, None));
        let weights = net.constant(&[2, 4], &[1f32; 8]);
        let bias = net.constant(&[4], &[1f32; 4]);
        let (split, join) = (net.constant(&[4], &[0i64, 0, heads, 2]), net.constant(&[3], &[0i64, 0, 4]));
        let product = net.op("MatMul", &[x, weights]);
        let value = net.op("Add", &[bias, product]);
        let parts = net.op("Reshape", &[value, split]);
        let parts = net.op("Transpose", &[parts]);
        let weighted = net.op("MatMul", &[p, parts]);
        let turned = net.op("Transpose", &[weighted]);
        let joined = net.op("Reshape", &[turned, join]);
        let [by, _] = net.smoothed(joined);
        (net, by)
    }

    #[test]
    fn factors_go_through_attention_to_the_values() {
        let (mut net, by) = attention(2);
        absorb(&mut net.0, by).unwrap();
        assert_eq!(net.ops(), ["MatMul", "Add", "Reshape", "Transpose", "MatMul", "Transpose", "Reshape", "MatMul"]);
        assert_eq!((net.holds(0, 1), net.holds(1, 0)), ([1.0, 2.0, 4.0, 8.0].repeat(2), vec![1.0, 2.0, 4.0, 8.0]));
    }

    #[test]
    fn what_cannot_take_factors_in_keeps_its_product() {
        // Heads that are not all channels; an output of the model; a reader that is no addition.
        let (mut net, by) = attention(3);
        let before = net.0.clone();
        absorb(&mut net.0, by).unwrap();
        assert_eq!(net.0.nodes.len(), before.nodes.len());
        for is_output in [true, false] {
            let mut net = Net(Graph::default());
            let x = net.0.add_value("x", None);
            let scale = net.constant(&[4], &[1f32; 4]);
            let y = net.op("LayerNormalization", &[x, scale]);
            let [by, _] = net.smoothed(y);
            match is_output {
                true => net.0.outputs.push(Port { value: y, dtype: None, dims: None }),
                false => drop(net.op("Softmax", &[y])),
            }
            absorb(&mut net.0, by).unwrap();
            assert_eq!((net.ops()[1], net.holds(0, 1)), ("Mul", vec![1.0; 4]));
        }
    }
}
