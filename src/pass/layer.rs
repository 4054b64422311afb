//! Layers: matrix products, convolutions and tables with constant weights.

use super::index::Index;
use super::pattern::{int, is_plain_product};
use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, ValueId};

/// What a layer does with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Kind {
    /// MatMul or Gemm with weights `[k, rows]`.
    Product,
    /// Gemm with weights `[rows, k]`.
    TransposedProduct,
    /// Conv with weights `[rows, c / groups, taps..]`.
    Conv,
    /// Gather or Slice of rows of a table `[.., k]`.
    Table,
}

impl Kind {
    /// Whether it is a matrix product.
    pub fn is_product(self) -> bool {
        matches!(self, Kind::Product | Kind::TransposedProduct)
    }
}

/// The weights of one or more nodes, as `rows` outputs of `k` inputs each.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Of the first node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// What its nodes do.
    pub kind: Kind,
    /// Where the weights lie.
    pub weight: ValueId,
    /// The nodes that read them in this way.
    pub nodes: Vec<NodeId>,
    /// Outputs, over all groups; rows of a table.
    pub rows: usize,
    /// Inputs of one output: of a convolution, channels of a group x taps; the width of a table.
    pub k: usize,
    /// Groups of outputs that read inputs of their own; 1 but for convolutions.
    pub groups: usize,
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

/// Products and convolutions that alone read their weights, in the order of their first nodes, and what looks like one but is none.
pub fn layers(graph: &Graph) -> (Vec<Layer>, Vec<Refused>) {
    let index = Index::new(graph);
    let (found, mut refused) = all_layers(graph);
    let products = found.into_iter().filter(|l| l.kind != Kind::Table);
    let (whole, shared): (Vec<_>, Vec<_>) = products.partition(|l| index.uses(l.weight) == l.nodes.len());
    refused.extend(shared.into_iter().map(|l| Refused { node: l.name, why: "something else reads its weights too".into() }));
    (whole, refused)
}

/// Tables too, and layers whose weights are read in other ways as well. Subgraphs are left alone.
pub fn all_layers(graph: &Graph) -> (Vec<Layer>, Vec<Refused>) {
    let index = Index::new(graph);
    let (mut found, mut refused): (Vec<Layer>, Vec<Refused>) = Default::default();
    for (at, node) in graph.nodes.iter().enumerate() {
        match layer(graph, &index, at, node) {
            Some(Ok(new)) => match found.iter_mut().find(|l| l.reads_like(&new)) {
                Some(same) => same.nodes.push(at),
                None => found.push(new),
            },
            Some(Err(why)) => refused.push(Refused { node: node.name.clone(), why: why.into() }),
            None => {}
        }
    }
    (found, refused)
}

/// The layer of one node; `None` of other operators and without constants.
fn layer(graph: &Graph, index: &Index, at: NodeId, node: &Node) -> Option<Result<Layer, &'static str>> {
    let place = match node.op.as_str() {
        _ if !node.domain.is_empty() || node.epilogue.is_some() => return None,
        "MatMul" | "Gemm" | "Conv" | "ConvTranspose" => 1,
        "Gather" if int(node, "axis", 0) == 0 => 0,
        "Slice" if takes_whole_rows(graph, index, node) => 0,
        _ => return None,
    };
    let value = |i: usize| node.inputs.get(i).copied().flatten();
    let is_constant = |i: usize| value(i).is_some_and(|v| graph.constant(v).is_some());
    if place == 0 && (!is_constant(0) || table(graph, index, node).is_none()) || !(is_constant(0) || is_constant(1)) {
        return None;
    }
    Some(described(graph, index, at, node, place))
}

fn described(graph: &Graph, index: &Index, at: NodeId, node: &Node, place: usize) -> Result<Layer, &'static str> {
    let constant = |i: usize| node.inputs.get(i).copied().flatten().filter(|&w| index.constant(graph, w).is_some());
    let weight = constant(place).ok_or("the weights are not its second operand, or the caller may replace them")?;
    if place == 1 && constant(0).is_some() {
        return Err("its input is constant");
    }
    let tensor = index.constant(graph, weight).filter(|t| t.dtype() == DType::F32 && t.numel() > 0);
    let tensor = tensor.ok_or("the weights are not f32")?;
    if tensor.values::<f32>().is_ok_and(|v| v.iter().any(|w| !w.is_finite())) {
        return Err("its weights are not finite");
    }
    let shape = tensor.shape();
    let name = if node.name.is_empty() { format!("{} {at}", node.op) } else { node.name.clone() };
    let new = |kind, rows, k, groups| Ok(Layer { name, op: node.op.clone(), kind, weight, nodes: vec![at], rows, k, groups });
    match (node.op.as_str(), &shape[..]) {
        ("Gather" | "Slice", [.., width]) => new(Kind::Table, tensor.numel() / width, *width, 1),
        ("Conv", [m, ..]) if shape.rank() > 2 => match usize::try_from(int(node, "group", 1)) {
            Ok(groups) if groups > 0 && m.is_multiple_of(groups) => new(Kind::Conv, *m, shape[1..].iter().product(), groups),
            _ => Err("its groups do not fit its weights"),
        },
        // Such as the scales of rows by those of columns in a quantised product.
        ("MatMul" | "Gemm", &[1, _]) if int(node, "transB", 0) == 0 => Err("an outer product: nothing is summed"),
        ("MatMul", &[k, rows]) => new(Kind::Product, rows, k, 1),
        ("Gemm", _) if !is_plain_product(node) => {
            Err("its first operand is transposed, or its product or its bias is multiplied")
        }
        ("Gemm", &[rows, k]) if int(node, "transB", 0) != 0 => new(Kind::TransposedProduct, rows, k, 1),
        ("Gemm", &[k, rows]) => new(Kind::Product, rows, k, 1),
        ("ConvTranspose", _) => Err("a transposed convolution"),
        _ => Err("the weights are not one matrix"),
    }
}

/// What a Gather or Slice takes rows of: floats of two axes or more; what it takes them by is no constant.
fn table<'g>(graph: &'g Graph, index: &Index, node: &Node) -> Option<&'g Tensor> {
    let value = |i: usize| node.inputs.get(i).copied().flatten();
    let by = value(if node.op == "Gather" { 1 } else { 2 })?;
    let table = index.constant(graph, value(0)?).filter(|t| t.dtype() == DType::F32 && t.shape().rank() >= 2)?;
    index.constant(graph, by).is_none().then_some(table)
}

/// Whether a Slice by inputs leaves the last axis whole.
fn takes_whole_rows(graph: &Graph, index: &Index, node: &Node) -> bool {
    let constant = |i: usize| node.inputs.get(i).copied().flatten().and_then(|v| index.constant(graph, v));
    let (Some(data), Some(axes)) = (constant(0), constant(3).and_then(Tensor::to_i64)) else { return false };
    let last = data.shape().rank() as i64 - 1;
    axes.iter().all(|&a| a != -1 && a != last)
}

impl Layer {
    fn reads_like(&self, other: &Layer) -> bool {
        let shape = |l: &Layer| (l.weight, l.kind, l.rows, l.k, l.groups);
        shape(self) == shape(other)
    }

    /// The weights, [rows x k].
    pub fn weights(&self, graph: &Graph) -> Result<Vec<f32>> {
        let tensor = graph.constant(self.weight).map_or_else(|| Tensor::zeros(DType::F32, [0]), |t| Ok(t.clone()))?;
        let values = tensor.values::<f32>()?;
        Ok(if self.is_transposed() { transposed(&values, self.k, self.rows) } else { values.into_owned() })
    }

    /// Other weights, [rows x k], as they lie. Errors when there are not as many.
    pub fn tensor(&self, graph: &Graph, weights: &[f32]) -> Result<Tensor> {
        if weights.len() != self.rows * self.k {
            let (given, name, rows, k) = (weights.len(), &self.name, self.rows, self.k);
            return Err(Error::BadInput(format!("{given} weights for {name}, which has {rows} x {k}")));
        }
        let shape = graph.constant(self.weight).map(|t| t.shape().clone()).unwrap_or_default();
        match self.is_transposed() {
            true => Tensor::new(shape, &transposed(weights, self.rows, self.k)),
            false => Tensor::new(shape, weights),
        }
    }

    /// Puts other weights, [rows x k], in their place. Errors when there are not as many.
    pub fn set_weights(&self, graph: &mut Graph, weights: &[f32]) -> Result<()> {
        graph.values[self.weight.0].constant = Some(self.tensor(graph, weights)?);
        Ok(())
    }

    /// What its nodes multiply the weights by; the tables themselves.
    pub fn inputs(&self, graph: &Graph) -> Vec<ValueId> {
        self.nodes.iter().filter_map(|&n| graph.nodes[n].inputs[0]).collect()
    }

    /// Whether it is a convolution of each channel by itself.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.rows
    }

    /// Whether its weights lie as [k x rows].
    pub fn is_transposed(&self) -> bool {
        self.kind == Kind::Product
    }
}

/// Rows of a [rows x columns] matrix become columns.
pub fn transposed<T: Copy>(of: &[T], rows: usize, columns: usize) -> Vec<T> {
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
        let row = weight(&mut graph, &[1, 3]);
        add(&mut graph, "MatMul", x, row, &[]);
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
        assert!(why.iter().any(|w| w.contains("outer product")), "{why:?}");
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
