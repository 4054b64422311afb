//! TopK of a matrix product: the largest results of each row are kept while the product runs, and the others are never stored.

use super::index::Index;
use super::pattern::int;
use super::simplify::drop_unused;
use crate::base::DType;
use crate::graph::ops::top_product::K;
use crate::graph::problem::gemm::STRIPE;
use crate::graph::{Attr, Graph, Node};
use crate::hardware::DeviceKind;

/// Products by name, with their domains.
const PRODUCTS: [(&str, &str); 5] =
    [("", "MatMul"), ("", "Gemm"), ("halfbyte", "Linear"), ("halfbyte", "LinearInt8"), ("halfbyte", "LinearStored")];

/// Makes `halfbyte:MatMulTopK` of them where nothing else reads the product and kernels of the device do both; gives how many.
pub fn fuse(graph: &mut Graph, device: DeviceKind) -> usize {
    let index = Index::new(graph);
    let fused: Vec<(usize, Node)> =
        graph.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, fused(graph, &index, node, device)?))).collect();
    let count = fused.len();
    for (at, node) in fused {
        graph.nodes[at] = node;
    }
    if count > 0 {
        drop_unused(graph);
    }
    count
}

fn fused(graph: &Graph, index: &Index, top: &Node, device: DeviceKind) -> Option<Node> {
    let largest = top.domain.is_empty() && top.op == "TopK" && int(top, "axis", -1) == -1 && int(top, "largest", 1) != 0;
    let (Some(results), Some(k)) = (top.inputs.first().copied()?, top.inputs.get(1).copied()?) else { return None };
    let product = &graph.nodes[index.producer(results).filter(|_| largest && index.uses(results) == 1)?];
    let known = PRODUCTS.contains(&(product.domain.as_str(), product.op.as_str())) && product.epilogue.is_none();
    let b = index.constant(graph, product.inputs.get(1).copied()??).filter(|t| t.shape().rank() == 2)?;
    // Results of ONNX's products have the type of their operands.
    let is_f32 = !product.domain.is_empty() || b.dtype() == DType::F32;
    let taken = match device {
        DeviceKind::Cpu => true,
        DeviceKind::Cuda | DeviceKind::Wgpu => {
            b.shape()[usize::from(int(product, "transB", 0) == 0)] > STRIPE && has_one_addend(graph, index, product)
        }
        DeviceKind::Null => false,
    };
    if !known || !is_f32 || !taken || product.inputs.len() > K {
        return None;
    }
    let mut inputs = product.inputs.clone();
    inputs.resize(K, None);
    inputs.push(Some(k));
    let mut attrs = product.attrs.clone();
    attrs.insert("of".into(), Attr::Str(product.op.clone()));
    Some(Node { name: top.name.clone(), attrs, ..Node::new("halfbyte", "MatMulTopK", 1, inputs, top.outputs.clone()) })
}

/// Whether what is added to the product is the same for all its rows.
fn has_one_addend(graph: &Graph, index: &Index, product: &Node) -> bool {
    let at = usize::from(product.op.starts_with("Linear") && product.op != "Linear") + 2;
    let Some(c) = product.inputs.get(at).copied().flatten() else { return true };
    let declared = graph.inputs.iter().find(|port| port.value == c).and_then(|port| Some(port.dims.as_ref()?.len()));
    index.constant(graph, c).map(|t| t.shape().rank()).or(declared).is_some_and(|rank| rank < 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Tensor;
    use crate::graph::Port;

    /// TopK of a product of the input and a constant of `n` columns, with these attributes; `reads` more nodes read the product.
    fn graph(n: usize, attrs: &[(&str, Attr)], reads: usize) -> Graph {
        let mut g = Graph::default();
        let [x, y, numbers, columns] = ["x", "y", "numbers", "columns"].map(|name| g.add_value(name, None));
        let b = g.add_value("b", Some(Tensor::zeros(DType::F32, [4, n]).unwrap()));
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
        for (device, n) in [(DeviceKind::Cpu, 9), (DeviceKind::Cuda, STRIPE + 1), (DeviceKind::Wgpu, STRIPE + 1)] {
            let mut fused = graph(n, &[], 0);
            assert_eq!((fuse(&mut fused, device), fused.nodes.len()), (1, 1));
            let node = &fused.nodes[0];
            assert_eq!((node.full_op().as_str(), node.inputs.len(), node.outputs.len()), ("halfbyte:MatMulTopK", K + 1, 2));
            for (attrs, reads) in [
                (vec![("largest", Attr::Int(0))], 0),
                (vec![("axis", Attr::Int(0))], 0),
                (vec![("axis", Attr::Int(1))], 0),
                (vec![], 1),
            ] {
                assert_eq!(fuse(&mut graph(n, &attrs, reads), device), 0, "{attrs:?} {reads}");
            }
        }
    }

    #[test]
    fn what_no_kernel_of_the_device_takes_stays_two_nodes() {
        assert_eq!(fuse(&mut graph(STRIPE, &[], 0), DeviceKind::Cuda), 0, "few columns are sorted as they are");
        assert_eq!(fuse(&mut graph(STRIPE + 1, &[], 0), DeviceKind::Null), 0);
        // C as wide as the product, one row of it, and of unknown shape.
        let with = |dims: Option<usize>, device| {
            let mut g = graph(STRIPE + 1, &[], 0);
            let c = g.add_value("c", None);
            g.nodes[0].op = "Gemm".into();
            g.nodes[0].inputs.push(Some(c));
            g.inputs.push(Port { value: c, dtype: None, dims: dims.map(|rank| vec![crate::graph::Dim::Any; rank]) });
            fuse(&mut g, device)
        };
        assert_eq!([Some(2), Some(1), None].map(|dims| with(dims, DeviceKind::Wgpu)), [0, 1, 0]);
        assert_eq!([Some(2), Some(1), None].map(|dims| with(dims, DeviceKind::Cpu)), [1, 1, 1]);
        // Products of other types than f32.
        for device in [DeviceKind::Cpu, DeviceKind::Cuda] {
            let mut g = graph(STRIPE + 1, &[], 0);
            let b = g.nodes[0].inputs[1].unwrap();
            g.values[b.0].constant = Some(Tensor::zeros(DType::F64, [4, STRIPE + 1]).unwrap());
            assert_eq!(fuse(&mut g, device), 0);
        }
    }
}
