//! TopK of a matrix product: the largest results of each row are kept while the product runs, and the others are never stored.

use super::index::Index;
use super::pattern::int;
use super::simplify::drop_unused;
use crate::graph::ops::top_product::K;
use crate::graph::{Attr, Graph, Node};

/// Products by name, with their domains.
const PRODUCTS: [(&str, &str); 5] =
    [("", "MatMul"), ("", "Gemm"), ("halfbyte", "Linear"), ("halfbyte", "LinearInt8"), ("halfbyte", "LinearStored")];

/// Makes `halfbyte:MatMulTopK` of them where nothing else reads the product; gives how many.
pub fn fuse(graph: &mut Graph) -> usize {
    let index = Index::new(graph);
    let fused: Vec<(usize, Node)> =
        graph.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, fused(graph, &index, node)?))).collect();
    let count = fused.len();
    for (at, node) in fused {
        graph.nodes[at] = node;
    }
    if count > 0 {
        drop_unused(graph);
    }
    count
}

fn fused(graph: &Graph, index: &Index, top: &Node) -> Option<Node> {
    let largest = top.domain.is_empty() && top.op == "TopK" && int(top, "axis", -1) == -1 && int(top, "largest", 1) != 0;
    let (Some(results), Some(k)) = (top.inputs.first().copied()?, top.inputs.get(1).copied()?) else { return None };
    let product = &graph.nodes[index.producer(results).filter(|_| largest && index.uses(results) == 1)?];
    let known = PRODUCTS.contains(&(product.domain.as_str(), product.op.as_str())) && product.epilogue.is_none();
    let is_matrix = |v| index.constant(graph, v).is_some_and(|t| t.shape().rank() == 2);
    if !known || product.inputs.len() > K || !product.inputs.get(1).copied().flatten().is_some_and(is_matrix) {
        return None;
    }
    let mut inputs = product.inputs.clone();
    inputs.resize(K, None);
    inputs.push(Some(k));
    let mut attrs = product.attrs.clone();
    attrs.insert("of".into(), Attr::Str(product.op.clone()));
    Some(Node { name: top.name.clone(), attrs, ..Node::new("halfbyte", "MatMulTopK", 1, inputs, top.outputs.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DType, Tensor};
    use crate::graph::Port;

    /// TopK of a product of the input and a constant, with these attributes; `reads` more nodes read the product.
    fn graph(attrs: &[(&str, Attr)], reads: usize) -> Graph {
        let mut g = Graph::default();
        let [x, y, numbers, columns] = ["x", "y", "numbers", "columns"].map(|name| g.add_value(name, None));
        let b = g.add_value("b", Some(Tensor::zeros(DType::F32, [4, 9]).unwrap()));
        let k = g.add_value("k", Some(Tensor::vector(&[3i64])));
        g.nodes.push(Node::new("", "MatMul", 13, vec![Some(x), Some(b)], vec![Some(y)]));
        let mut top = Node::new("", "TopK", 11, vec![Some(y), Some(k)], vec![Some(numbers), Some(columns)]);
        top.attrs = attrs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        g.nodes.push(top);
        let port = |value| Port { value, dtype: None, dims: None };
        g.inputs.push(port(x));
        g.outputs.extend([numbers, columns].map(port));
        g.outputs.extend((0..reads).map(|_| port(y)));
        g
    }

    #[test]
    fn products_that_nothing_else_reads_are_never_stored() {
        let mut fused = graph(&[], 0);
        assert_eq!((fuse(&mut fused), fused.nodes.len()), (1, 1));
        let node = &fused.nodes[0];
        assert_eq!((node.full_op().as_str(), node.inputs.len(), node.outputs.len()), ("halfbyte:MatMulTopK", K + 1, 2));
        for (attrs, reads) in [
            (vec![("largest", Attr::Int(0))], 0),
            (vec![("axis", Attr::Int(0))], 0),
            (vec![("axis", Attr::Int(1))], 0),
            (vec![], 1),
        ] {
            assert_eq!(fuse(&mut graph(&attrs, reads)), 0, "{attrs:?} {reads}");
        }
    }
}
