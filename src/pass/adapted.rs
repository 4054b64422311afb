//! Adapters of low rank that stay beside the weights: each item of a batch says which one it takes.

use std::collections::HashMap;

use super::emit::{Emit, splice};
use super::index::Index;
use super::layer::Layer;
use super::lora::{Adapter, targets};
use super::pattern::{Match, Pattern, int, op, op_if, var};
use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Attr, Dim, Graph, Node, NodeId, Port, ValueId};

/// One layer's stacked factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapted {
    /// The layer.
    pub layer: String,
    /// Of each adapter; 0 where it leaves the layer alone.
    pub ranks: Vec<usize>,
}

/// Adds scale B A x to the layers that `sets` adapt, from the set that each item of the batch names: the new input `input`, i32 `[batch]`, holds
/// the number of its set, or -1. Written in standard operators (Gather, MatMul), with zeros up to the largest rank of a layer and in
/// the last place of each stack, where -1 leads. Errors when an adapter fits no layer, or one that is no matrix product.
pub fn attach(graph: &mut Graph, sets: &[Vec<Adapter>], input: &str) -> Result<Vec<Adapted>> {
    if graph.values.iter().any(|v| v.name == input) {
        return Err(Error::BadInput(format!("the model has a value {input:?} already")));
    }
    let mut layers: Vec<(Layer, Vec<Option<&Adapter>>)> = Vec::new();
    for (at, set) in sets.iter().enumerate() {
        for (adapter, layer) in set.iter().zip(targets(graph, set)?) {
            let place = layers.iter().position(|(l, _)| *l == layer).unwrap_or_else(|| {
                layers.push((layer, vec![None; sets.len()]));
                layers.len() - 1
            });
            let (layer, taken) = &mut layers[place];
            let bad = |why: &str| Err(Error::BadInput(format!("adapter {at} of {}: {why}", adapter.target)));
            match taken[at].replace(adapter) {
                Some(_) => return bad("two pairs for one layer"),
                None if layer.op == "Conv" => return bad("convolutions take merged adapters only"),
                None => {}
            }
        }
    }
    let first = graph.inputs.first().and_then(|p| p.dims.as_ref()).and_then(|d| d.first()).cloned().unwrap_or(Dim::Any);
    let number = graph.add_value(input, None);
    graph.inputs.push(Port { value: number, dtype: Some(DType::I32), dims: Some(vec![first]) });
    let mut made = HashMap::new();
    for (layer, adapters) in &layers {
        for &node in &layer.nodes {
            let at = with_bias(graph, node);
            let after = beside(graph, at, graph.nodes[node].inputs[0], number, layer, adapters)?;
            made.insert(at, after);
        }
    }
    splice(graph, made);
    let ranks = |adapters: &[Option<&Adapter>]| adapters.iter().map(|a| a.map_or(0, |a| a.rank)).collect();
    Ok(layers.iter().map(|(layer, adapters)| Adapted { layer: layer.name.clone(), ranks: ranks(adapters) }).collect())
}

/// The addition of a constant that alone reads what a node gives, else the node.
fn with_bias(graph: &Graph, node: NodeId) -> NodeId {
    let index = Index::new(graph);
    let out = graph.nodes[node].outputs.first().copied().flatten();
    let reads = |n: &Node| n.op == "Add" && n.domain.is_empty() && n.inputs.contains(&out);
    let row = |v: ValueId| index.constant(graph, v).is_some_and(|t| t.shape().rank() == 1);
    let next = graph.nodes.iter().position(|n| reads(n) && n.inputs.iter().flatten().any(|&v| row(v)));
    next.filter(|_| out.is_some_and(|v| index.uses(v) == 1)).unwrap_or(node)
}

/// Node `at`, and behind it what adds the adapters' products of `x` to what it gives.
fn beside(
    graph: &mut Graph,
    at: NodeId,
    x: Option<ValueId>,
    number: ValueId,
    layer: &Layer,
    adapters: &[Option<&Adapter>],
) -> Result<Vec<Node>> {
    let mut node = graph.nodes[at].clone();
    let x = x.ok_or_else(|| Error::BadInput(format!("{} has no input", layer.name)))?;
    let (k, n) = (layer.k, layer.rows);
    let rank = adapters.iter().flatten().map(|a| a.rank).max().unwrap_or(0);
    let stack = |rows, columns, fill: &dyn Fn(&Adapter, usize, usize) -> f32| {
        let places = || (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
        let one = |a: &Option<&Adapter>| places().map(|(i, j)| a.map_or(0.0, |a| fill(a, i, j))).collect::<Vec<f32>>();
        let all: Vec<f32> = adapters.iter().chain([&None]).flat_map(one).collect();
        Tensor::new([adapters.len() + 1, rows, columns], &all)
    };
    let a = stack(k, rank, &|a, i, r| if r < a.rank { a.a[r * k + i] } else { 0.0 })?;
    let b = stack(rank, n, &|a, r, j| if r < a.rank { a.scale * a.b[j * a.rank + r] } else { 0.0 })?;
    let y = graph.add_value(format!("{}/base", node.name), None);
    let mut emit = Emit::new(graph, &node);
    let [a, b] = [("lora_A", a), ("lora_B", b)].map(|(name, t)| {
        let stack = emit.constant(name, t);
        emit.with("Gather", &[stack, number], [("axis", Attr::Int(0))])
    });
    let (batch, rest) = (emit.op("Shape", &[number]), emit.constant("rows", Tensor::vector(&[-1i64, k as i64])));
    let shape = emit.with("Concat", &[batch, rest], [("axis", Attr::Int(0))]);
    let items = emit.op("Reshape", &[x, shape]);
    let inner = emit.op("MatMul", &[items, a]);
    let change = emit.op("MatMul", &[inner, b]);
    let shape = emit.op("Shape", &[y]);
    let change = emit.op("Reshape", &[change, shape]);
    emit.op("Add", &[y, change]);
    let after = emit.done();
    node.outputs[0] = Some(y);
    Ok([node].into_iter().chain(after).collect())
}

const X: usize = 0;
const Y: usize = 1;
const NUMBER: usize = 2;
const A: usize = 3;
const B: usize = 4;
const ROWS: usize = 5;
const WHOLE: usize = 6;

/// What [`attach`] writes becomes `halfbyte:LoRA`.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let gather = |stack| op_if("Gather", [Pattern::Weight(stack), var(NUMBER)], |n| int(n, "axis", 0) == 0);
    let inner = op("MatMul", [op("Reshape", [var(X), var(ROWS)]), gather(A)]);
    let pattern = var(Y) + op("Reshape", [op("MatMul", [inner, gather(B)]), var(WHOLE)]);
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in 0..graph.nodes.len() {
        let root = graph.nodes[at].op == "Add" && !index.is_dead(at);
        let Some(&Some(out)) = graph.nodes[at].outputs.first().filter(|_| root) else { continue };
        let Some(m) = pattern.find(graph, &index, out) else { continue };
        let Some([a, b]) = stacks(graph, &index, &m) else { continue };
        let stack = |(i, t): (usize, Tensor)| Some(graph.add_value(format!("{}/{i}", graph.nodes[at].name), Some(t)));
        let stacks: Vec<Option<ValueId>> = [(A, a), (B, b)].map(stack).into();
        let inputs = [X, Y, NUMBER].map(|i| m.var(i)).into_iter().chain(stacks).collect();
        let mut node = Node::new("halfbyte", "LoRA", 1, inputs, vec![Some(out)]);
        node.name = graph.nodes[at].name.clone();
        index.replace(graph, at, node, &m.nodes);
        count += 1;
    }
    index.sweep(graph);
    count
}

/// The stacks without the zeros at their ends, if all is as [`attach`] writes it.
fn stacks(graph: &Graph, index: &Index, m: &Match) -> Option<[Tensor; 2]> {
    let [a, b] = [A, B].map(|i| index.constant(graph, m.var(i)?));
    let (&[count, k, rank], &[..]) = (&a?.shape()[..], &b?.shape()[..]) else { return None };
    let made = |i: usize| index.producer(m.var(i)?).map(|n| &graph.nodes[n]);
    let shape_of = |n: &Node, v: usize| n.op == "Shape" && n.inputs[..] == [m.var(v)] && n.attrs.is_empty();
    let rows = made(ROWS).filter(|n| n.op == "Concat" && n.inputs.len() == 2)?;
    let batch = index.producer(rows.inputs[0]?).is_some_and(|n| shape_of(&graph.nodes[n], NUMBER));
    let rest = index.constant(graph, rows.inputs[1]?)?.to_i64()? == [-1, k as i64];
    let fits = a?.dtype() == DType::F32 && b?.dtype() == DType::F32 && b?.shape().len() == 3 && b?.shape()[..2] == [count, rank];
    if count == 0 || !fits || !batch || !rest || !shape_of(made(WHOLE)?, Y) {
        return None;
    }
    let front = |t: &Tensor| {
        let values = t.values::<f32>().ok()?;
        let (front, last) = values.split_at(values.len() / count * (count - 1));
        let mut shape = t.shape().clone();
        shape[0] = count - 1;
        last.iter().all(|&v| v == 0.0).then(|| Tensor::new(shape, front).ok())?
    };
    Some([front(a?)?, front(b?)?])
}
