//! Activations and normalisations that exporters take apart, put together again.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use super::index::Index;
use super::pattern::{Match, Pattern, either, float, int, number, op, op_if, scaled, var};
use crate::graph::{Attr, Graph, Node, ValueId};

/// A pattern and the node that takes its place.
struct Rule {
    pattern: Pattern,
    build: fn(&Graph, &Index, &Match, ValueId) -> Option<Node>,
}

/// Applies every rule wherever it fits, from the outputs backwards so that the largest pattern comes first.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let rules = rules();
    let mut index = Index::new(graph);
    let mut count = 0;
    for at in (0..graph.nodes.len()).rev() {
        let Some(&Some(out)) = graph.nodes[at].outputs.first() else { continue };
        if index.is_dead(at) || graph.nodes[at].outputs.len() != 1 {
            continue;
        }
        let found = rules.iter().find_map(|rule| {
            let m = rule.pattern.find(graph, &index, out)?;
            let node = (rule.build)(graph, &index, &m, out).filter(|n| n.def.is_some())?;
            Some((m, node))
        });
        if let Some((m, mut node)) = found {
            node.name = graph.nodes[at].name.clone();
            index.replace(graph, at, node, &m.nodes);
            count += 1;
        }
    }
    index.sweep(graph);
    count
}

fn rules() -> Vec<Rule> {
    vec![
        Rule { pattern: erf_gelu(), build: |_, _, m, out| unary("Gelu", 20, m, out) },
        Rule {
            pattern: tanh_gelu(),
            build: |_, _, m, out| with(unary("Gelu", 20, m, out)?, "approximate", Attr::Str("tanh".into())),
        },
        Rule { pattern: swish(), build: build_swish },
        Rule { pattern: hard_swish(), build: |_, _, m, out| unary("HardSwish", 14, m, out) },
        Rule { pattern: layer_norm() + Pattern::Weight(BETA), build: build_layer_norm },
        Rule { pattern: layer_norm(), build: build_layer_norm },
    ]
}

fn unary(op: &str, opset: i64, m: &Match, out: ValueId) -> Option<Node> {
    Some(Node::new("", op, opset, vec![Some(m.var(0)?)], vec![Some(out)]))
}

fn with(mut node: Node, name: &str, attr: Attr) -> Option<Node> {
    node.attrs.insert(name.into(), attr);
    Some(node)
}

/// Half of the product, wherever the half stands.
fn half_product(a: Pattern, b: Pattern) -> Pattern {
    either([scaled(a.clone() * b.clone(), 0.5), scaled(a.clone(), 0.5) * b.clone(), a * scaled(b, 0.5)])
}

fn erf_gelu() -> Pattern {
    let x = var(0);
    half_product(x.clone(), op("Erf", [scaled(x, FRAC_1_SQRT_2)]) + number(1.0))
}

fn tanh_gelu() -> Pattern {
    let x = var(0);
    let square = either([x.clone() * x.clone(), op("Pow", [x.clone(), number(2.0)])]);
    let cube = either([op("Pow", [x.clone(), number(3.0)]), square.clone() * x.clone()]);
    let (a, c) = (0.044715, (2.0 / PI).sqrt());
    let outside = scaled(x.clone() + scaled(cube, a), c);
    let inner = number(1.0) + either([scaled(square, a), scaled(x.clone(), a) * x.clone()]);
    let inside = either([scaled(x.clone(), c) * inner.clone(), scaled(x.clone() * inner, c)]);
    half_product(x, op("Tanh", [either([outside, inside])]) + number(1.0))
}

const ALPHA: usize = 1;

fn swish() -> Pattern {
    let x = var(0);
    x.clone() * op("Sigmoid", [either([x.clone() * Pattern::Scalar(ALPHA), x])])
}

fn build_swish(graph: &Graph, index: &Index, m: &Match, out: ValueId) -> Option<Node> {
    let alpha = m.var(ALPHA).and_then(|v| index.scalar(graph, v)).unwrap_or(1.0);
    with(unary("Swish", 24, m, out)?, "alpha", Attr::Float(alpha as f32))
}

fn hard_swish() -> Pattern {
    let x = var(0);
    let shifted = x.clone() + number(3.0);
    let bounds = |n: &Node| float(n, "min", f32::MIN) == 0.0 && float(n, "max", f32::MAX) == 6.0;
    let clip = either([op("Clip", [shifted.clone(), number(0.0), number(6.0)]), op_if("Clip", [shifted], bounds)]);
    let slope = |n: &Node| (float(n, "alpha", 0.2) - 1.0 / 6.0).abs() < 1e-6 && float(n, "beta", 0.5) == 0.5;
    let sigmoid = op_if("HardSigmoid", [x.clone()], slope);
    let sixth = |p: Pattern| scaled(p, 1.0 / 6.0);
    either([x.clone() * sigmoid, sixth(x.clone() * clip.clone()), x.clone() * sixth(clip.clone()), sixth(x) * clip])
}

const EPSILON: usize = 1;
const GAMMA: usize = 2;
const BETA: usize = 3;

/// The mean along the last axis, kept as an axis of one.
fn mean(x: Pattern) -> Pattern {
    let last = |n: &Node| int(n, "keepdims", 1) == 1 && matches!(n.attrs.get("axes"), Some(Attr::Ints(a)) if a[..] == [-1]);
    let kept = |n: &Node| int(n, "keepdims", 1) == 1;
    either([op_if("ReduceMean", [x.clone()], last), op_if("ReduceMean", [x, number(-1.0)], kept)])
}

fn layer_norm() -> Pattern {
    let x = var(0);
    let centred = x.clone() - mean(x);
    let square = either([op("Pow", [centred.clone(), number(2.0)]), centred.clone() * centred.clone()]);
    let deviation = op("Sqrt", [mean(square) + Pattern::Scalar(EPSILON)]);
    let unit = either([centred.clone() / deviation.clone(), centred.clone() * op("Reciprocal", [deviation])]);
    unit * Pattern::Weight(GAMMA)
}

fn build_layer_norm(graph: &Graph, index: &Index, m: &Match, out: ValueId) -> Option<Node> {
    let gamma = index.constant(graph, m.var(GAMMA)?)?;
    // One element could be stretched over an axis of any size, which the operator does not do.
    let factor = gamma.shape().rank() == 1 && gamma.numel() > 1;
    let beta = m.var(BETA).and_then(|v| index.constant(graph, v));
    if !factor || beta.is_some_and(|b| b.shape() != gamma.shape()) {
        return None;
    }
    let inputs = [m.var(0), m.var(GAMMA), m.var(BETA)].into_iter().take(if beta.is_some() { 3 } else { 2 }).collect();
    let node = Node::new("", "LayerNormalization", 17, inputs, vec![Some(out)]);
    let epsilon = index.scalar(graph, m.var(EPSILON)?)? as f32;
    with(with(node, "axis", Attr::Int(-1))?, "epsilon", Attr::Float(epsilon))
}
