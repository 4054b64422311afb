//! Products of the same rows by several constant matrices: one product by all of them side by side rounds the rows once, and is one launch.

use std::collections::{BTreeMap, HashMap};

use super::emit::{Emit, splice};
use super::index::Index;
use crate::base::{DType, Tensor};
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};

/// Inputs of `halfbyte:LinearInt8`.
const ROWS: usize = 0;
const WEIGHTS: usize = 1;
const SCALES: usize = 2;
const ADDEND: usize = 3;

/// A product that can stand beside others, and what is added to its columns.
struct Sibling {
    product: NodeId,
    /// The addition behind it, gone with it.
    sum: Option<NodeId>,
    columns: usize,
    bias: Option<ValueId>,
    out: ValueId,
}

/// Joins `halfbyte:LinearInt8` nodes that read the same rows, with constants that are added to their columns; gives how many are gone.
/// Every result has the bits that it had.
pub fn join(graph: &mut Graph) -> usize {
    let index = Index::new(graph);
    let mut families: BTreeMap<(ValueId, String), Vec<Sibling>> = BTreeMap::new();
    for at in 0..graph.nodes.len() {
        if let Some((key, sibling)) = sibling(graph, &index, at) {
            families.entry(key).or_default().push(sibling);
        }
    }
    families.retain(|_, family| family.len() > 1);
    let mut made: HashMap<NodeId, Vec<Node>> = HashMap::new();
    for family in families.values() {
        made.extend(family.iter().flat_map(|s| [Some(s.product), s.sum]).flatten().map(|gone| (gone, Vec::new())));
        // Where the first of them stood, before all that reads one.
        made.insert(family[0].product, beside(graph, family));
    }
    splice(graph, made);
    families.values().map(|family| family.len() - 1).sum()
}

fn sibling(graph: &Graph, index: &Index, at: NodeId) -> Option<((ValueId, String), Sibling)> {
    let node = &graph.nodes[at];
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let whole = node.full_op() == "halfbyte:LinearInt8" && node.epilogue.is_none() && node.outputs.len() == 1;
    let plain = whole && input(ADDEND).is_none() && node.attrs.keys().all(|name| name == "rows");
    let product = node.outputs[0].filter(|_| plain)?;
    let weights = index.constant(graph, input(WEIGHTS)?).filter(|t| t.dtype() == DType::I8)?;
    let &[_, columns] = &weights.shape()[..] else { return None };
    let scales = index.constant(graph, input(SCALES)?)?;
    if scales.dtype() != DType::F32 || scales.shape()[..] != [1, columns] {
        return None;
    }
    let rows = match node.attrs.get("rows") {
        Some(Attr::Str(rows)) => rows.clone(),
        _ => "symmetric".into(),
    };
    let (sum, bias, out) = match added(graph, index, product, columns) {
        Some((sum, bias)) => (Some(sum), Some(bias), graph.nodes[sum].outputs[0]?),
        None => (None, None, product),
    };
    Some(((input(ROWS)?, rows), Sibling { product: at, sum, columns, bias, out }))
}

/// The only node that reads a product, where it adds a constant of as many numbers as the product has columns; and the constant.
fn added(graph: &Graph, index: &Index, product: ValueId, columns: usize) -> Option<(NodeId, ValueId)> {
    let at = graph.nodes.iter().position(|n| n.inputs.contains(&Some(product)))?;
    let node = &graph.nodes[at];
    let is_sum = node.full_op() == "Add" && node.epilogue.is_none() && index.uses(product) == 1;
    let bias = node.inputs.iter().copied().flatten().find(|&v| v != product)?;
    let fits = |t: &Tensor| t.dtype() == DType::F32 && t.shape()[..] == [columns];
    (is_sum && index.constant(graph, bias).is_some_and(fits)).then_some((at, bias))
}

/// The product by all matrices; nodes that join scales and biases are folded away.
fn beside(graph: &mut Graph, family: &[Sibling]) -> Vec<Node> {
    let first = graph.nodes[family[0].product].clone();
    let inputs =
        |graph: &Graph, i: usize| -> Vec<ValueId> { family.iter().filter_map(|s| graph.nodes[s.product].inputs[i]).collect() };
    let (mut weights, scales) = (inputs(graph, WEIGHTS).into_iter().map(Some), inputs(graph, SCALES));
    let mut emit = Emit::new(graph, &first);
    let beside = |emit: &mut Emit, all: &[ValueId], axis: i64| Some(emit.with("Concat", all, [("axis", Attr::Int(axis))]));
    let mut all = vec![first.inputs[ROWS], weights.next().flatten(), beside(&mut emit, &scales, 1), None];
    if family.iter().any(|s| s.bias.is_some()) {
        // What is added where nothing was changes no bit, that of a zero's sign among them.
        let bias = |s: &Sibling| s.bias.unwrap_or_else(|| emit.constant("bias", Tensor::vector(&vec![-0f32; s.columns])));
        let bias: Vec<ValueId> = family.iter().map(bias).collect();
        all[ADDEND] = beside(&mut emit, &bias, 0);
    }
    all.extend(weights);
    let mut node = Node { inputs: all, ..first };
    node.attrs.insert("widths".into(), Attr::Ints(family.iter().map(|s| s.columns as i64).collect()));
    emit.node(node);
    let mut made = emit.done();
    if let Some(node) = made.last_mut() {
        node.outputs = family.iter().map(|s| Some(s.out)).collect();
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Port;

    /// Products of one input, each of `[4, columns]` weights, as (columns, rows, has a bias); `reads` more nodes read the last one.
    fn graph(products: &[(usize, &str, bool)], reads: usize) -> Graph {
        let mut g = Graph::default();
        let x = g.add_value("x", None);
        let port = |value| Port { value, dtype: None, dims: None };
        g.inputs.push(port(x));
        for (i, &(columns, rows, has_bias)) in products.iter().enumerate() {
            let w = g.add_value(format!("w{i}"), Some(Tensor::zeros(DType::I8, [4, columns]).unwrap()));
            let s = g.add_value(format!("s{i}"), Some(Tensor::zeros(DType::F32, [1, columns]).unwrap()));
            let b = g.add_value(format!("b{i}"), Some(Tensor::zeros(DType::F32, [columns]).unwrap()));
            let [y, sum] = ["y", "sum"].map(|name| g.add_value(format!("{name}{i}"), None));
            let mut node = Node::new("halfbyte", "LinearInt8", 1, vec![Some(x), Some(w), Some(s)], vec![Some(y)]);
            node.attrs.insert("rows".into(), Attr::Str(rows.into()));
            g.nodes.push(node);
            if has_bias {
                g.nodes.push(Node::new("", "Add", 13, vec![Some(b), Some(y)], vec![Some(sum)]));
            }
            g.outputs.push(port(if has_bias { sum } else { y }));
            if i + 1 == products.len() {
                g.outputs.extend((0..reads).map(|_| port(y)));
            }
        }
        g
    }

    fn joined(g: &Graph) -> &Node {
        g.nodes.iter().find(|n| n.attrs.contains_key("widths")).expect("a joined product")
    }

    #[test]
    fn products_of_the_same_rows_become_one() {
        let mut g = graph(&[(8, "symmetric", true), (3, "symmetric", false), (5, "symmetric", true)], 0);
        let outputs: Vec<_> = g.outputs.iter().map(|p| Some(p.value)).collect();
        assert_eq!(join(&mut g), 2);
        let node = joined(&g);
        assert_eq!((&node.outputs, node.inputs.len()), (&outputs, 6));
        assert!(matches!(node.attrs.get("widths"), Some(Attr::Ints(w)) if w[..] == [8, 3, 5]));
        let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["Concat", "Concat", "LinearInt8"], "no addition is left");
        // What is added where nothing was is a negative zero, which keeps that of a sum.
        let zeros = g.values.iter().filter_map(|v| v.constant.as_ref()).filter(|t| t.shape()[..] == [3]);
        assert!(zeros.flat_map(Tensor::to_f64).any(|v| v.is_sign_negative()));
        let mut bare = graph(&[(8, "symmetric", false), (8, "symmetric", false)], 0);
        assert_eq!((join(&mut bare), joined(&bare).inputs.len(), joined(&bare).inputs[ADDEND]), (1, 5, None));
    }

    #[test]
    fn what_only_looks_alike_is_left() {
        assert_eq!(join(&mut graph(&[(8, "symmetric", true)], 0)), 0, "one alone");
        assert_eq!(join(&mut graph(&[(8, "symmetric", true), (8, "asymmetric", true)], 0)), 0, "rounded otherwise");
        // A product that is read before its bias is added keeps its addition.
        let mut read = graph(&[(8, "symmetric", true), (8, "symmetric", true)], 1);
        assert_eq!(join(&mut read), 1);
        assert_eq!(read.nodes.last().map(|n| n.op.as_str()), Some("Add"));
        // Of other rows, with weights that are computed, and scales of another shape.
        let change = |f: &dyn Fn(&mut Graph)| {
            let mut g = graph(&[(8, "symmetric", false), (8, "symmetric", false)], 0);
            f(&mut g);
            join(&mut g)
        };
        let other = |g: &mut Graph| g.nodes[1].inputs[0] = Some(g.add_value("other", None));
        let computed = |g: &mut Graph| g.nodes[1].inputs[1] = Some(g.add_value("computed", None));
        let one = |g: &mut Graph| g.nodes[1].inputs[2] = Some(g.add_value("one", Some(Tensor::scalar(1f32))));
        assert_eq!([change(&other), change(&computed), change(&one)], [0, 0, 0]);
    }
}
