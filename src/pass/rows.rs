//! Products whose rows are quantised while running, written in standard operators (`pass/quantize/rewrite.rs` writes them), become one node.

use super::emit::{TO_F32, TO_I8, TO_I32};
use super::index::Index;
use super::pattern::{Match, Pattern, either, int, number, op, op_if, var};
use crate::base::DType;
use crate::graph::{Attr, Graph, Node};

const X: usize = 0;
const WEIGHTS: usize = 1;
const SCALES: usize = 2;
const ONES: usize = 3;

/// Rewrites them to `halfbyte:LinearInt8`.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let patterns = [(symmetric(), "symmetric"), (asymmetric(), "asymmetric")];
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in 0..graph.nodes.len() {
        let root = graph.nodes[at].op == "Mul" && !index.is_dead(at);
        let Some(&Some(out)) = graph.nodes[at].outputs.first().filter(|_| root) else { continue };
        let found = patterns.iter().find_map(|(p, rows)| Some((p.find(graph, &index, out)?, *rows)));
        let Some((m, rows)) = found else { continue };
        if !is_right(graph, &index, &m) {
            continue;
        }
        let inputs = [X, WEIGHTS, SCALES].map(|i| m.var(i)).to_vec();
        let mut node = Node::new("halfbyte", "LinearInt8", 1, inputs, vec![Some(out)]);
        node.name = graph.nodes[at].name.clone();
        node.attrs.insert("rows".into(), Attr::Str(rows.into()));
        index.replace(graph, at, node, &m.nodes);
        count += 1;
    }
    index.sweep(graph);
    count
}

fn to_f32(x: Pattern) -> Pattern {
    op_if("Cast", [x], |n| int(n, "to", 0) == TO_F32)
}

fn to_i8(x: Pattern) -> Pattern {
    op_if("Cast", [x], |n| int(n, "to", 0) == TO_I8)
}

fn to_i32(x: Pattern) -> Pattern {
    op_if("Cast", [x], |n| int(n, "to", 0) == TO_I32)
}

fn along_rows(name: &'static str, x: Pattern) -> Pattern {
    let keeps = |n: &Node| int(n, "keepdims", 1) == 1;
    let last = |n: &Node| int(n, "keepdims", 1) == 1 && matches!(n.attrs.get("axes"), Some(Attr::Ints(a)) if a[..] == [-1]);
    either([op_if(name, [x.clone()], last), op_if(name, [x, number(-1.0)], keeps)])
}

/// Scale 1 where it would be 0.
fn guarded(scale: Pattern) -> Pattern {
    op("Where", [op("Equal", [scale.clone(), number(0.0)]), number(1.0), scale])
}

fn scaled(sum: Pattern, scale: Pattern) -> Pattern {
    to_f32(sum) * op("MatMul", [scale, Pattern::Weight(SCALES)])
}

fn symmetric() -> Pattern {
    let scale = guarded(along_rows("ReduceMax", op("Abs", [var(X)])) / number(127.0));
    let bytes = to_i8(op("Round", [var(X) / scale.clone()]));
    scaled(op("MatMulInteger", [bytes, Pattern::Weight(WEIGHTS)]), scale)
}

fn asymmetric() -> Pattern {
    let least = op("Min", [along_rows("ReduceMin", var(X)), number(0.0)]);
    let largest = op("Max", [along_rows("ReduceMax", var(X)), number(0.0)]);
    let scale = guarded((largest - least.clone()) / number(255.0));
    let offset = op("Round", [op("Neg", [least]) / scale.clone()]);
    let moved = op("Round", [var(X) / scale.clone()]) + offset.clone();
    let clipped = op("Clip", [moved, number(0.0), number(255.0)]);
    let product = op("MatMulInteger", [to_i8(clipped - number(128.0)), Pattern::Weight(WEIGHTS)]);
    let excess = to_i32(offset - number(128.0)) * op("MatMulInteger", [Pattern::Weight(ONES), Pattern::Weight(WEIGHTS)]);
    scaled(product - excess, scale)
}

/// Whether weights and scales are of the right types, and what the weights are summed with are ones.
fn is_right(graph: &Graph, index: &Index, m: &Match) -> bool {
    let constant = |i: usize| m.var(i).and_then(|v| index.constant(graph, v));
    let (Some(weights), Some(scales)) = (constant(WEIGHTS), constant(SCALES)) else { return false };
    let &[k, n] = &weights.shape()[..] else { return false };
    if weights.dtype() != DType::I8 || scales.dtype() != DType::F32 || scales.shape()[..] != [1, n] {
        return false;
    }
    constant(ONES).is_none_or(|t| {
        t.dtype() == DType::I8
            && matches!(t.shape()[..], [n] | [1, n] if n == k)
            && t.to_i64().is_some_and(|v| v.iter().all(|&x| x == 1))
    })
}
