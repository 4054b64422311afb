//! Attention heads as exporters write them: the layers that make and read them, and what shrinks when some are removed.

use std::collections::HashSet;

use super::channels::{put, select, shrink_readers};
use super::index::Index;
use super::layer::{Layer, Refused};
use super::simplify::drop_unused;
use crate::base::{Shape, Tensor};
use crate::error::Result;
use crate::graph::{Graph, Node, NodeId, ValueId};

/// `softmax(q k) v` of heads side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Of the Softmax.
    pub name: String,
    /// The layer that reads all heads, as a place in the list of layers.
    pub reader: usize,
    /// The Reshape behind the heads, in front of the reader.
    join: NodeId,
    /// What makes queries, keys and values; one where a layer makes all three.
    makers: Vec<Maker>,
}

/// A layer whose outputs a Reshape splits into heads.
#[derive(Debug, Clone, PartialEq)]
struct Maker {
    /// Its place in the list of layers.
    layer: usize,
    split: NodeId,
    /// The constant that is added in between: node, input.
    bias: Option<(NodeId, usize)>,
}

/// Heads and the size of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Heads {
    pub count: usize,
    pub size: usize,
}

/// All attentions whose heads can be followed, and those where something stands in the way.
pub fn attentions(graph: &Graph, layers: &[Layer]) -> (Vec<Attention>, Vec<Refused>) {
    let walk = Walk { graph, index: Index::new(graph), layers };
    let (mut found, mut refused): (Vec<_>, Vec<_>) = Default::default();
    for node in graph.nodes.iter().filter(|n| n.op == "Softmax" && n.domain.is_empty()) {
        match walk.attention(node) {
            Ok(Some(attention)) => found.push(attention),
            Ok(None) => {}
            Err(why) => refused.push(Refused { node: node.name.clone(), why }),
        }
    }
    (found, refused)
}

struct Walk<'g> {
    graph: &'g Graph,
    index: Index,
    layers: &'g [Layer],
}

impl Walk<'_> {
    fn made_by(&self, value: Option<ValueId>) -> Option<(NodeId, &Node)> {
        let at = self.index.producer(value?)?;
        Some((at, &self.graph.nodes[at]))
    }

    /// The only node that reads what a node gives, sizes aside.
    fn reader(&self, of: &Node) -> Option<(NodeId, &Node)> {
        let out = of.outputs.first().copied().flatten()?;
        let mut all = self.graph.nodes.iter().enumerate().filter(|(_, n)| n.op != "Shape" && n.uses().contains(&out));
        let outside = self.graph.outputs.iter().any(|p| p.value == out);
        all.next().filter(|_| all.next().is_none() && !outside)
    }

    /// `None` where the Softmax weighs nothing: of classes, say.
    fn attention(&self, softmax: &Node) -> Result<Option<Attention>, String> {
        let weighs = |(_, n): &(NodeId, &Node)| n.op == "MatMul" && n.inputs[0] == softmax.outputs[0];
        let Some((_, weighted)) = self.reader(softmax).filter(weighs) else { return Ok(None) };
        let Some(scores) = self.scores(softmax.inputs[0], 0) else { return Err("its scores are no product".into()) };
        let (_, turned) =
            self.reader(weighted).filter(|(_, n)| n.op == "Transpose").ok_or("its heads are not joined by a Transpose")?;
        let (join, joined) =
            self.reader(turned).filter(|(_, n)| n.op == "Reshape").ok_or("its heads are not joined by a Reshape")?;
        let (reader, _) = self.reader(joined).ok_or("several read its heads")?;
        let place = self.layers.iter().position(|l| l.nodes == [reader] && l.op != "Conv");
        let reader = place.ok_or("no layer of its own reads its heads")?;
        let (mut makers, mut passed): (Vec<Maker>, _) = (Vec::new(), HashSet::new());
        for value in [scores.inputs[0], scores.inputs[1], weighted.inputs[1]] {
            let maker = self.maker(value, &mut passed)?;
            if !makers.contains(&maker) {
                makers.push(maker);
            }
        }
        // Nothing else may read what lies between the makers and the products.
        let ends = |n: &Node| std::ptr::eq(n, scores) || std::ptr::eq(n, weighted) || n.op == "Shape";
        let inside: HashSet<ValueId> =
            passed.iter().flat_map(|&n: &NodeId| self.graph.nodes[n].outputs.iter().flatten().copied()).collect();
        let mut others = self.graph.nodes.iter().enumerate().filter(|(at, n)| !passed.contains(at) && !ends(n));
        let given = self.graph.outputs.iter().any(|p| inside.contains(&p.value));
        match given || others.any(|(_, n)| n.uses().iter().any(|v| inside.contains(v))) {
            true => Err("something else reads its queries, keys or values".into()),
            false => Ok(Some(Attention { name: softmax.name.clone(), reader, join, makers })),
        }
    }

    /// The product behind scaled and masked scores, none of whose constants has an axis of heads.
    fn scores(&self, value: Option<ValueId>, depth: usize) -> Option<&Node> {
        let (_, node) = self.made_by(value)?;
        let headless = |v: &&Option<ValueId>| {
            let constant = v.and_then(|v| self.graph.constant(v)).map(Tensor::shape);
            constant.is_none_or(|s| s.rank() < 3 || s[s.rank() - 3] == 1)
        };
        match node.op.as_str() {
            "MatMul" if node.inputs.iter().flatten().all(|&v| self.graph.constant(v).is_none()) => Some(node),
            "Mul" | "Div" | "Add" | "Where" | "Cast" if depth < 8 && node.inputs.iter().all(|v| headless(&v)) => {
                node.inputs.iter().find_map(|&v| self.scores(v, depth + 1))
            }
            _ => None,
        }
    }

    /// Follows a product's operand back to the layer that makes it; `passed` are the nodes on the way, and the layer.
    fn maker(&self, mut value: Option<ValueId>, passed: &mut HashSet<NodeId>) -> Result<Maker, String> {
        let (mut split, mut bias) = (None, None);
        while let Some((at, node)) = self.made_by(value) {
            passed.insert(at);
            let constant =
                |i: usize| node.inputs.get(i).copied().flatten().is_some_and(|v| self.index.constant(self.graph, v).is_some());
            if let (Some(layer), Some(split)) = (self.layers.iter().position(|l| l.nodes == [at] && l.op != "Conv"), split) {
                return Ok(Maker { layer, split, bias: bias.or(constant(2).then_some((at, 2))) });
            }
            let from = match (node.op.as_str(), split) {
                ("Reshape", None) => {
                    split = Some(at);
                    0
                }
                ("Transpose" | "Squeeze" | "Split" | "Mul" | "Div", None) | ("Identity", _) => 0,
                ("Gather", None) if constant(1) => 0,
                ("Add", Some(_)) if bias.is_none() && constant(0) != constant(1) => {
                    let own = usize::from(constant(1));
                    bias = Some((at, own));
                    1 - own
                }
                _ => return Err(format!("{} {} makes its queries, keys or values", node.full_op(), node.name)),
            };
            value = node.inputs[from];
        }
        Err("no layer makes its queries, keys or values".into())
    }
}

impl Attention {
    /// The values whose shapes [`Attention::heads`] asks for: what goes into each Reshape and what comes out.
    pub fn ends(&self, graph: &Graph) -> Vec<ValueId> {
        let ends = |n: NodeId| [graph.nodes[n].inputs[0], graph.nodes[n].outputs[0]];
        self.reshapes().flat_map(ends).flatten().collect()
    }

    /// The first of its nodes that shrinks.
    pub fn first(&self, layers: &[Layer]) -> NodeId {
        self.makers.iter().flat_map(|m| &layers[m.layer].nodes).copied().min().unwrap_or(0)
    }

    fn reshapes(&self) -> impl Iterator<Item = NodeId> {
        self.makers.iter().map(|m| m.split).chain([self.join])
    }

    /// Its heads, by the shapes of [`Attention::ends`] in some run. Errors when they lie otherwise than as `[batch, positions, (parts,) heads, size]`.
    pub fn heads(&self, layers: &[Layer], shapes: &[&Shape]) -> Result<Heads, String> {
        let lies = || {
            let &[batch, positions, count, size] = &shapes[shapes.len() - 2][..] else { return None };
            let flat = |s: &Shape, k: usize| s[..] == [batch, positions, k];
            let split = |(m, s): (&Maker, &[&Shape])| {
                let rows = layers[m.layer].rows;
                let whole = [batch, positions, rows / (count * size).max(1), count, size];
                let parts = whole[2];
                let out = if parts == 1 { [&whole[..2], &whole[3..]].concat() } else { whole.to_vec() };
                flat(s[0], rows) && s[1][..] == out[..] && (parts == 1 || parts != count) && parts * count * size == rows
            };
            let all = self.makers.iter().zip(shapes.chunks_exact(2)).all(split);
            let joined = flat(shapes[shapes.len() - 1], layers[self.reader].k) && layers[self.reader].k == count * size;
            (all && joined).then_some(Heads { count, size })
        };
        lies().ok_or_else(|| {
            format!("its heads lie otherwise: {}", shapes.iter().map(|s| s.to_string()).collect::<Vec<_>>().join(", "))
        })
    }

    /// Keeps some heads. `weights` are the reader's, [rows x k], of which the columns that are left are taken. Errors when they do not fit.
    pub fn shrink(&self, graph: &mut Graph, layers: &[Layer], heads: Heads, kept: &[usize], weights: Vec<f32>) -> Result<()> {
        let Heads { count, size } = heads;
        for maker in &self.makers {
            let layer = &layers[maker.layer];
            let parts = layer.rows / (count * size).max(1);
            let heads = (0..parts).flat_map(|part| kept.iter().map(move |h| part * count + h));
            let rows: Vec<usize> = heads.flat_map(|h| h * size..(h + 1) * size).collect();
            put(graph, layer.nodes[0], 1, |t| select(t, usize::from(layer.is_transposed()), &rows))?;
            if let Some((node, input)) = maker.bias {
                let whole = |t: &Tensor| t.shape().last() == Some(&layer.rows);
                put(graph, node, input, |t| if whole(t) { select(t, t.shape().rank() - 1, &rows) } else { Ok(t.clone()) })?;
            }
            let shape: &[i64] = &[0, 0, parts as i64, kept.len() as i64, size as i64];
            let without_parts = [&shape[..2], &shape[3..]].concat();
            reshape(graph, maker.split, if parts == 1 { &without_parts } else { shape });
        }
        reshape(graph, self.join, &[0, 0, (kept.len() * size) as i64]);
        shrink_readers(graph, layers, &[(self.reader, size)], kept, &[weights])
    }
}

/// Gives a Reshape a constant shape, in which 0 keeps an axis.
fn reshape(graph: &mut Graph, node: NodeId, to: &[i64]) {
    let shape = graph.add_value(format!("{}/heads", graph.nodes[node].name), Some(Tensor::vector(to)));
    graph.nodes[node].inputs[1] = Some(shape);
    graph.nodes[node].attrs.remove("allowzero");
}

/// Removes what nobody reads any more: shapes that the exporter worked out while running.
pub fn tidy(graph: &mut Graph) {
    drop_unused(graph);
}
