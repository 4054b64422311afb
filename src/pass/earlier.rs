//! Quantisation goes before what only moves elements: bytes are moved, and each element is quantised before it is repeated.

use std::collections::HashMap;

use super::emit::{Emit, splice};
use super::index::Index;
use super::integer::scaled;
use crate::graph::{Attr, Graph, Node, NodeId};

/// Moves QuantizeLinear by one scale before Concat and Resize to the nearest; gives how often.
pub(super) fn quantize(graph: &mut Graph) -> usize {
    let mut count = 0;
    // Each round moves one node of each chain.
    loop {
        let index = Index::new(graph);
        let mut made = HashMap::new();
        for at in 0..graph.nodes.len() {
            if let Some((mover, nodes)) = moved(graph, &index, at).filter(|(mover, _)| !made.contains_key(mover)) {
                made.extend([(mover, nodes), (at, Vec::new())]);
                count += 1;
            }
        }
        if made.is_empty() {
            return count;
        }
        splice(graph, made);
    }
}

/// The node that makes what the QuantizeLinear `at` reads, and what takes the place of both.
fn moved(graph: &mut Graph, index: &Index, at: NodeId) -> Option<(NodeId, Vec<Node>)> {
    let found = scaled(graph, index, at, "QuantizeLinear")?;
    index.scalar(graph, found.scale)?;
    let mover = index.producer(found.value).filter(|_| index.uses(found.value) == 1)?;
    let (quantize, mut node) = (graph.nodes[at].clone(), graph.nodes[mover].clone());
    let plain = node.domain.is_empty() && node.epilogue.is_none();
    let sources = match node.op.as_str() {
        "Concat" if plain => node.inputs.len(),
        "Resize" if plain && repeats(&node) => 1,
        _ => return None,
    };
    let sources: Vec<_> = node.inputs[..sources].iter().copied().collect::<Option<_>>()?;
    let mut emit = Emit::new(graph, &quantize);
    for (i, source) in sources.into_iter().enumerate() {
        let inputs = [source, found.scale, found.zero].map(Some).to_vec();
        node.inputs[i] = Some(emit.node(Node { inputs, ..quantize.clone() }));
    }
    emit.node(node);
    Some((mover, emit.done()))
}

/// Whether a Resize gives elements of its input alone.
fn repeats(node: &Node) -> bool {
    let is = |name: &str, value: &str| matches!(node.attrs.get(name), Some(Attr::Str(v)) if v == value);
    (is("mode", "nearest") || !node.attrs.contains_key("mode")) && !is("coordinate_transformation_mode", "tf_crop_and_resize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DType, Tensor};
    use crate::graph::Port;

    #[test]
    fn elements_are_quantised_before_they_are_repeated_and_joined() {
        for (mode, moved) in [("nearest", 2), ("linear", 1)] {
            let mut g = Graph::default();
            let [a, b] = ["a", "b"].map(|name| g.add_value(name, None));
            g.inputs = [a, b].map(|value| Port { value, dtype: Some(DType::F32), dims: None }).to_vec();
            let mut constant = |t: Tensor| g.add_value("", Some(t));
            let (scale, zero) = (constant(Tensor::scalar(0.5f32)), constant(Tensor::scalar(3i8)));
            let scales = constant(Tensor::vector(&[1f32, 1.0, 2.0, 2.0]));
            let [large, joined, out] = [(); 3].map(|()| g.add_value("", None));
            let node = |op: &str, inputs: Vec<_>, out, attr: (&str, Attr)| {
                let attrs = [(attr.0.to_string(), attr.1)].into();
                Node { attrs, ..Node::new("", op, 13, inputs, vec![Some(out)]) }
            };
            let resize = vec![Some(a), None, Some(scales)];
            g.nodes.push(node("Resize", resize, large, ("mode", Attr::Str(mode.into()))));
            g.nodes.push(node("Concat", vec![Some(large), Some(b)], joined, ("axis", Attr::Int(1))));
            g.nodes.push(node("QuantizeLinear", [joined, scale, zero].map(Some).to_vec(), out, ("axis", Attr::Int(1))));
            g.outputs.push(Port { value: out, dtype: None, dims: None });
            assert_eq!(quantize(&mut g), moved, "{mode}");
            let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
            let first = if moved == 2 { ["QuantizeLinear", "Resize"] } else { ["Resize", "QuantizeLinear"] };
            assert_eq!(ops, [&first[..], &["QuantizeLinear", "Concat"]].concat(), "{mode}");
            assert_eq!(g.nodes.last().unwrap().outputs, [Some(out)]);
            assert_eq!(quantize(&mut g), 0);
        }
    }
}
