//! A float model with its weights stored as f16 or bf16, in standard operators.

use half::{bf16, f16};

use super::index::Index;
use super::pipeline::everywhere;
use crate::base::{DType, Tensor};
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};

/// Constants of fewer elements stay: a node that widens them takes as many bytes.
const MIN_ELEMENTS: usize = 128;
/// The largest finite f16.
const F16_MAX: f32 = 65504.0;
/// Operators of this version have all element types that are needed here.
const MIN_OPSET: i64 = 13;

/// What became of a model's f32 constants.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Halved {
    /// Names of the constants that are stored with 16 bits now.
    pub converted: Vec<String>,
    /// Those that stay as they are, of 128 elements or more.
    pub kept: Vec<Kept>,
    /// Values other than 0 that are below the 16-bit type's normal range now: they have fewer digits than the others.
    pub subnormal: usize,
    /// Values other than 0 that are 0 now.
    pub zeroed: usize,
    /// Bytes of all constants before.
    pub bytes_before: usize,
    /// Bytes of all constants now.
    pub bytes_after: usize,
}

/// A constant that stays f32.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Kept {
    /// The value's name.
    pub name: String,
    /// The reason.
    pub why: &'static str,
}

/// Stores the f32 constants of `graph` whose names are allowed as `dtype` (f16 or bf16) and widens them where they are used: all arithmetic
/// stays f32, so that any runtime gives the same answers for the file. Rows of a table that are gathered are widened after that.
pub fn halve(graph: &mut Graph, dtype: DType, allowed: &dyn Fn(&str) -> bool) -> Halved {
    let mut done = Halved { bytes_before: graph.constant_bytes(), ..Halved::default() };
    everywhere(graph, &mut |g| one(g, dtype, allowed, &mut done));
    done.bytes_after = graph.constant_bytes();
    done
}

fn one(graph: &mut Graph, dtype: DType, allowed: &dyn Fn(&str) -> bool, done: &mut Halved) -> usize {
    let index = Index::new(graph);
    let opset = graph.nodes.iter().filter(|n| n.domain.is_empty()).map(|n| n.opset).max().unwrap_or(MIN_OPSET);
    let opset = if dtype == DType::BF16 { opset.max(MIN_OPSET) } else { opset };
    let readers = readers(graph);
    let mut widened = Vec::new();
    for (at, readers) in readers.iter().enumerate() {
        let v = ValueId(at);
        let Some(constant) = index.constant(graph, v).filter(|t| t.dtype() == DType::F32 && t.numel() >= MIN_ELEMENTS) else {
            continue;
        };
        let name = graph.values[at].name.clone();
        let lowered = lowered(graph, readers, v, constant, dtype);
        let half = match lowered.and_then(|half| if allowed(&name) { Ok(half) } else { Err("answers would move too far") }) {
            Ok(half) => half,
            Err(why) => {
                done.kept.push(Kept { name, why });
                continue;
            }
        };
        done.converted.push(name.clone());
        done.subnormal += half.subnormal;
        done.zeroed += half.zeroed;
        let stored = graph.add_value(name.clone(), Some(half.tensor));
        graph.values[at].constant = None;
        let gathers = |&n: &NodeId| {
            graph.nodes[n].op == "Gather" && graph.nodes[n].domain.is_empty() && graph.nodes[n].inputs[1] != Some(v)
        };
        if !readers.is_empty() && readers.iter().all(gathers) {
            widened.extend(readers.iter().map(|&n| (n + 1, gather_stored(graph, n, stored, opset))));
        } else {
            graph.values[at].name = format!("{name}/f32");
            widened.push((0, cast(format!("{name}/widen"), opset, stored, v)));
        }
    }
    let count = widened.len();
    insert(graph, widened);
    count
}

/// The nodes that read each value; those of subgraphs through what these capture.
fn readers(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut readers = vec![Vec::new(); graph.values.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        node.uses().into_iter().for_each(|v| readers[v.0].push(at));
    }
    readers
}

/// A constant in 16 bits.
struct Half {
    tensor: Tensor,
    subnormal: usize,
    zeroed: usize,
}

/// The constant in 16 bits, or why it stays.
fn lowered(graph: &Graph, readers: &[NodeId], v: ValueId, constant: &Tensor, dtype: DType) -> Result<Half, &'static str> {
    if graph.outputs.iter().any(|p| p.value == v) {
        return Err("an output of the model");
    }
    if readers.iter().any(|&n| is_quantised(&graph.nodes[n])) {
        return Err("a scale of quantised tensors");
    }
    let values = constant.values::<f32>().map_err(|_| "not of f32")?;
    if !values.iter().all(|w| w.is_finite()) {
        return Err("not finite");
    }
    if dtype == DType::F16 && values.iter().any(|w| w.abs() > F16_MAX) {
        return Err("beyond the range of f16");
    }
    let (bits, rounded): (Vec<u16>, Vec<f32>) = values.iter().map(|&w| round(w, dtype)).unzip();
    let energy = |of: &mut dyn Iterator<Item = f64>| of.map(|v| v * v).sum::<f64>();
    let error = energy(&mut values.iter().zip(&rounded).map(|(&w, &h)| f64::from(w) - f64::from(h)));
    // Rounding takes half a last place at most, unless values are below the normal range.
    let last_place = if dtype == DType::F16 { 2f64.powi(-10) } else { 2f64.powi(-7) };
    if !rounded.iter().all(|h| h.is_finite()) || error > last_place.powi(2) * energy(&mut values.iter().map(|&w| f64::from(w))) {
        return Err("too much of it is below the 16-bit type's range");
    }
    let least = if dtype == DType::F16 { f16::MIN_POSITIVE.to_f32() } else { bf16::MIN_POSITIVE.to_f32() };
    let tensor =
        Tensor::from_raw(dtype, constant.shape().clone(), bytemuck::cast_slice(&bits)).map_err(|_| "its size overflows")?;
    let subnormal = rounded.iter().filter(|h| **h != 0.0 && h.abs() < least).count();
    let zeroed = values.iter().zip(&rounded).filter(|(w, h)| **w != 0.0 && **h == 0.0).count();
    Ok(Half { tensor, subnormal, zeroed })
}

/// To nearest, ties to even: the bits, and the number they stand for.
fn round(w: f32, dtype: DType) -> (u16, f32) {
    match dtype {
        DType::F16 => (f16::from_f32(w).to_bits(), f16::from_f32(w).to_f32()),
        _ => (bf16::from_f32(w).to_bits(), bf16::from_f32(w).to_f32()),
    }
}

/// Whether the operator takes scales: they are chosen as they are.
fn is_quantised(node: &Node) -> bool {
    ["uantize", "QLinear", "QGemm", "QAttention", "Integer"].iter().any(|word| node.op.contains(word))
}

/// Widens `from` to f32 as `to`.
fn cast(name: String, opset: i64, from: ValueId, to: ValueId) -> Node {
    let mut node = Node::new("", "Cast", opset, vec![Some(from)], vec![Some(to)]);
    node.attrs.insert("to".into(), Attr::Int(DType::F32.onnx().into()));
    Node { name, ..node }
}

/// Lets a Gather read the table as it is stored; the node that widens what it finds.
fn gather_stored(graph: &mut Graph, gather: NodeId, table: ValueId, opset: i64) -> Node {
    let found = graph.nodes[gather].outputs[0].expect("invariant: a Gather has an output");
    let rows = graph.add_value(format!("{}/stored", graph.values[found.0].name), None);
    let node = &mut graph.nodes[gather];
    node.inputs[0] = Some(table);
    node.outputs[0] = Some(rows);
    cast(format!("{}/widen", node.name), opset, rows, found)
}

/// Puts each node before the one that is at its place now.
fn insert(graph: &mut Graph, mut new: Vec<(NodeId, Node)>) {
    new.sort_by_key(|(at, _)| *at);
    let mut new = new.into_iter().peekable();
    let mut nodes = Vec::new();
    for (at, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        while let Some((_, n)) = new.next_if(|(before, _)| *before <= at) {
            nodes.push(n);
        }
        nodes.push(node);
    }
    nodes.extend(new.map(|(_, n)| n));
    graph.nodes = nodes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Port;

    /// x times a matrix, rows of a table, and a sum with a small and a far too large vector.
    fn model(first: f32) -> Graph {
        let mut g = Graph::default();
        let mut value = |name: &str, constant: Option<Tensor>| g.add_value(name, constant);
        let values: Vec<f32> = (0..256).map(|i| if i == 0 { first } else { 0.1 * i as f32 }).collect();
        let (x, ids) = (value("x", None), value("ids", None));
        let matrix = value("matrix", Tensor::new([16, 16], &values).ok());
        let table = value("table", Tensor::new([16, 16], &values[..]).ok());
        let small = value("small", Some(Tensor::vector(&values[..16])));
        let large = value("large", Some(Tensor::vector(&vec![1e5f32; 256])));
        let [a, rows, b, y] = ["a", "rows", "b", "y"].map(|n| value(n, None));
        g.inputs = [x, ids].map(|value| Port { value, dtype: Some(DType::F32), dims: None }).to_vec();
        for (op, inputs, output) in
            [("MatMul", [x, matrix], a), ("Gather", [table, ids], rows), ("Add", [a, small], b), ("Mul", [b, large], y)]
        {
            let mut node = Node::new("", op, 13, inputs.map(Some).to_vec(), vec![Some(output)]);
            node.name = op.into();
            g.nodes.push(node);
        }
        for v in [rows, y] {
            g.outputs.push(Port { value: v, dtype: Some(DType::F32), dims: None });
        }
        g
    }

    #[test]
    fn what_16_bits_hold_is_stored_so_and_widened_where_it_is_read() {
        let mut g = model(1e-7);
        let done = halve(&mut g, DType::F16, &|_| true);
        assert_eq!(
            (&done.converted[..], done.subnormal, done.zeroed),
            (&["matrix".to_string(), "table".into()][..], 2, 0),
            "{done:?}"
        );
        assert_eq!(done.kept, [Kept { name: "large".into(), why: "beyond the range of f16" }]);
        assert_eq!((done.bytes_before, done.bytes_after), (256 * 12 + 64, 256 * 8 + 64));
        let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["Cast", "MatMul", "Gather", "Cast", "Add", "Mul"]);
        let name = |v: Option<ValueId>| g.values[v.unwrap().0].name.as_str();
        assert_eq!((name(g.nodes[0].inputs[0]), name(g.nodes[1].inputs[1])), ("matrix", "matrix/f32"));
        assert_eq!((name(g.nodes[2].inputs[0]), name(g.nodes[3].outputs[0])), ("table", "rows"), "the output keeps its name");
        assert!(g.unmade().is_none());
        assert_eq!(halve(&mut g, DType::F16, &|_| true).converted.len(), 0, "once is all");
        assert_eq!(halve(&mut model(1e-7), DType::BF16, &|_| true).converted.len(), 3, "bf16 has f32's range");
    }

    #[test]
    fn values_that_vanish_are_counted_and_constants_that_would_change_stay() {
        let done = halve(&mut model(1e-9), DType::F16, &|_| true);
        assert_eq!((done.subnormal, done.zeroed), (0, 2));
        for (all, why) in [(1e-6, "too much"), (f32::INFINITY, "not finite"), (f32::NAN, "not finite")] {
            let mut g = model(0.0);
            g.values[2].constant = Some(Tensor::new([16, 16], &[all; 256]).unwrap());
            let done = halve(&mut g, DType::F16, &|_| true);
            assert!(done.kept.len() == 2 && done.kept[0].why.starts_with(why), "{done:?}");
        }
        let mut g = model(0.0);
        g.nodes[0].op = "DequantizeLinear".into();
        g.outputs.push(Port { value: ValueId(3), dtype: None, dims: None });
        g.optional_inputs.push(Port { value: ValueId(5), dtype: None, dims: None });
        assert_eq!(halve(&mut g, DType::F16, &|_| true).converted.len(), 0, "scales, outputs, and what the caller may override");
    }
}
