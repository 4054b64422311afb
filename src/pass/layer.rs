//! Layers: matrix products and convolutions with constant weights.

use super::index::Index;
use super::pattern::int;
use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, ValueId};

/// The weights of one or more nodes, as `rows` outputs of `k` inputs each.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Of the first node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Where the weights lie.
    pub weight: ValueId,
    /// The nodes that read them, as their second input.
    pub nodes: Vec<NodeId>,
    /// Outputs, over all groups.
    pub rows: usize,
    /// Inputs of one output: of a convolution, channels of a group x taps.
    pub k: usize,
    /// Groups of outputs that read inputs of their own; 1 but for convolutions.
    pub groups: usize,
    /// Whether the weights lie as [k x rows].
    transposed: bool,
}

/// A node that cannot be treated as a layer, and why not.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Refused {
    /// The node.
    pub node: String,
    /// The reason.
    pub why: String,
}

/// All layers of the graph in the order of their first nodes, and what looks like one but is none. Subgraphs are left alone.
pub fn layers(graph: &Graph) -> (Vec<Layer>, Vec<Refused>) {
    let index = Index::new(graph);
    let (mut found, mut refused): (Vec<Layer>, Vec<Refused>) = Default::default();
    for (at, node) in graph.nodes.iter().enumerate() {
        let product = node.domain.is_empty() && matches!(node.op.as_str(), "MatMul" | "Gemm" | "Conv" | "ConvTranspose");
        let constant = |i: usize| node.inputs.get(i).copied().flatten().is_some_and(|v| graph.constant(v).is_some());
        if !product || !(constant(0) || constant(1)) {
            continue;
        }
        match layer(graph, &index, at, node) {
            Ok(new) => match found.iter_mut().find(|l| l.weight == new.weight) {
                Some(same) if (same.rows, same.k, same.groups) == (new.rows, new.k, new.groups) => same.nodes.push(at),
                Some(_) => refused.push(Refused { node: node.name.clone(), why: "reads shared weights in another way".into() }),
                None => found.push(new),
            },
            Err(why) => refused.push(Refused { node: node.name.clone(), why: why.into() }),
        }
    }
    let (whole, shared): (Vec<_>, Vec<_>) = found.into_iter().partition(|l| index.uses(l.weight) == l.nodes.len());
    refused.extend(shared.into_iter().map(|l| Refused { node: l.name, why: "something else reads its weights too".into() }));
    (whole, refused)
}

fn layer(graph: &Graph, index: &Index, at: NodeId, node: &Node) -> Result<Layer, &'static str> {
    let weight = node.inputs.get(1).copied().flatten().filter(|&w| index.constant(graph, w).is_some());
    let weight = weight.ok_or("the weights are not its second operand, or the caller may replace them")?;
    let tensor = index.constant(graph, weight).filter(|t| t.dtype() == DType::F32 && t.numel() > 0);
    let shape = tensor.ok_or("the weights are not f32")?.shape();
    let name = if node.name.is_empty() { format!("{} {at}", node.op) } else { node.name.clone() };
    let new = |rows, k, groups, transposed| {
        Ok(Layer { name, op: node.op.clone(), weight, nodes: vec![at], rows, k, groups, transposed })
    };
    match (node.op.as_str(), &shape[..]) {
        ("Conv", [m, ..]) if shape.rank() > 2 => match usize::try_from(int(node, "group", 1)) {
            Ok(groups) if groups > 0 && m.is_multiple_of(groups) => new(*m, shape[1..].iter().product(), groups, false),
            _ => Err("its groups do not fit its weights"),
        },
        ("MatMul", &[k, rows]) => new(rows, k, 1, true),
        ("Gemm", _) if int(node, "transA", 0) != 0 => Err("its first operand is transposed"),
        ("Gemm", &[rows, k]) if int(node, "transB", 0) != 0 => new(rows, k, 1, false),
        ("Gemm", &[k, rows]) => new(rows, k, 1, true),
        ("ConvTranspose", _) => Err("a transposed convolution"),
        _ => Err("the weights are not one matrix"),
    }
}

impl Layer {
    /// The weights, [rows x k].
    pub fn weights(&self, graph: &Graph) -> Result<Vec<f32>> {
        let tensor = graph.constant(self.weight).map_or_else(|| Tensor::zeros(DType::F32, [0]), |t| Ok(t.clone()))?;
        let values = tensor.values::<f32>()?;
        Ok(if self.transposed { transposed(&values, self.k, self.rows) } else { values.into_owned() })
    }

    /// Puts other weights, [rows x k], in their place. Errors when there are not as many.
    pub fn set_weights(&self, graph: &mut Graph, weights: &[f32]) -> Result<()> {
        if weights.len() != self.rows * self.k {
            return Err(Error::BadInput(format!(
                "{} weights for {}, which has {} x {}",
                weights.len(),
                self.name,
                self.rows,
                self.k
            )));
        }
        let shape = graph.constant(self.weight).map(|t| t.shape().clone()).unwrap_or_default();
        let tensor = match self.transposed {
            true => Tensor::new(shape, &transposed(weights, self.rows, self.k))?,
            false => Tensor::new(shape, weights)?,
        };
        graph.values[self.weight.0].constant = Some(tensor);
        Ok(())
    }

    /// What its nodes multiply the weights by.
    pub fn inputs(&self, graph: &Graph) -> Vec<ValueId> {
        self.nodes.iter().filter_map(|&n| graph.nodes[n].inputs[0]).collect()
    }

    /// Whether its weights lie as [k x rows].
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }
}

/// Rows of a [rows x columns] matrix become columns.
pub fn transposed(of: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| of[r * columns + c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;

    fn graph() -> Graph {
        let mut graph = Graph::default();
        let x = graph.add_value("x", None);
        let weight = |graph: &mut Graph, shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
            graph.add_value("w", Some(Tensor::new(shape, &values).unwrap()))
        };
        let add = |graph: &mut Graph, op: &str, a: ValueId, b: ValueId, attrs: &[(&str, i64)]| {
            let y = graph.add_value(format!("y{}", graph.nodes.len()), None);
            let mut node = Node::new("", op, 17, vec![Some(a), Some(b)], vec![Some(y)]);
            node.attrs = attrs.iter().map(|(n, v)| (n.to_string(), Attr::Int(*v))).collect();
            graph.nodes.push(node);
            y
        };
        let [w, b, c, d, e] = [[2, 3].as_slice(), &[4, 3], &[6, 2, 3, 3], &[2, 2, 2], &[2, 3]].map(|s| weight(&mut graph, s));
        let y = add(&mut graph, "MatMul", x, w, &[]);
        add(&mut graph, "MatMul", y, w, &[]);
        add(&mut graph, "Gemm", y, b, &[("transB", 1)]);
        add(&mut graph, "Conv", x, c, &[("group", 2)]);
        add(&mut graph, "MatMul", x, d, &[]);
        add(&mut graph, "MatMul", w, x, &[]);
        add(&mut graph, "Gemm", x, e, &[]);
        add(&mut graph, "Add", x, e, &[]);
        graph
    }

    #[test]
    fn layers_are_found_with_their_shapes_and_the_rest_refused_with_a_reason() {
        let graph = graph();
        let (found, refused) = layers(&graph);
        let shown: Vec<_> = found.iter().map(|l| (l.op.as_str(), l.nodes.as_slice(), l.rows, l.k, l.groups)).collect();
        // The first weights are also the first operand of node 5, so that they are no layer's.
        assert_eq!(shown, [("Gemm", [2].as_slice(), 4, 3, 1), ("Conv", &[3], 6, 18, 2)]);
        let why: Vec<&str> = refused.iter().map(|r| r.why.as_str()).collect();
        assert_eq!(why.iter().filter(|w| w.contains("something else")).count(), 2, "{why:?}");
        assert!(why.iter().any(|w| w.contains("not one matrix")) && why.iter().any(|w| w.contains("second operand")), "{why:?}");
    }

    #[test]
    fn weights_come_as_rows_of_outputs_and_go_back_as_they_lay() {
        let mut graph = graph();
        graph.nodes.truncate(2);
        let (found, _) = layers(&graph);
        assert_eq!((found.len(), &found[0].nodes[..]), (1, &[0, 1][..]));
        assert_eq!(found[0].weights(&graph).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        found[0].set_weights(&mut graph, &[0.0, 3.0, 1.0, 4.0, 2.0, 7.0]).unwrap();
        let tensor = graph.constant(found[0].weight).unwrap();
        assert_eq!(tensor.values::<f32>().unwrap()[..], [0.0, 1.0, 2.0, 3.0, 4.0, 7.0]);
        assert!(found[0].set_weights(&mut graph, &[1.0]).is_err());
    }
}
