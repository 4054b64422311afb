//! Patterns of nodes, written as expressions over variables.

use std::ops::{Add, Div, Mul, Sub};

use super::index::Index;
use crate::base::DType;
use crate::graph::{Attr, Graph, Node, NodeId, ValueId};

/// Variables of one pattern at most.
const MAX_VARS: usize = 7;

/// What a value must be.
#[derive(Clone)]
pub(super) enum Pattern {
    /// Anything, but the same value at each place with this number.
    Var(usize),
    /// A constant tensor.
    Weight(usize),
    /// A constant of one element, whichever it is.
    Scalar(usize),
    /// A constant of one element, about this number.
    Number(f64),
    /// Output 0 of an ONNX operator whose node is as `allowed` says. Addition and multiplication commute.
    Node { op: &'static str, inputs: Vec<Pattern>, allowed: fn(&Node) -> bool },
    /// The first of these that fits, or any other that lets the rest fit.
    Either(Vec<Pattern>),
}

/// One way in which a pattern fits.
#[derive(Clone, Default)]
pub(super) struct Match {
    vars: [Option<ValueId>; MAX_VARS],
    /// Nodes inside the pattern, the root among them.
    pub nodes: Vec<NodeId>,
}

impl Match {
    /// The value of a variable, if the alternative that fits has it.
    pub fn var(&self, i: usize) -> Option<ValueId> {
        self.vars[i]
    }
}

pub(super) fn var(i: usize) -> Pattern {
    Pattern::Var(i)
}

pub(super) fn number(value: f64) -> Pattern {
    Pattern::Number(value)
}

/// An operator without conditions on its attributes.
pub(super) fn op(op: &'static str, inputs: impl Into<Vec<Pattern>>) -> Pattern {
    op_if(op, inputs, |_| true)
}

pub(super) fn op_if(op: &'static str, inputs: impl Into<Vec<Pattern>>, allowed: fn(&Node) -> bool) -> Pattern {
    Pattern::Node { op, inputs: inputs.into(), allowed }
}

pub(super) fn either(of: impl Into<Vec<Pattern>>) -> Pattern {
    Pattern::Either(of.into())
}

/// `x` times `factor`, or divided by its reciprocal.
pub(super) fn scaled(x: Pattern, factor: f64) -> Pattern {
    either([x.clone() * number(factor), x / number(1.0 / factor)])
}

impl Add for Pattern {
    type Output = Pattern;
    fn add(self, other: Pattern) -> Pattern {
        op("Add", [self, other])
    }
}

impl Sub for Pattern {
    type Output = Pattern;
    fn sub(self, other: Pattern) -> Pattern {
        op("Sub", [self, other])
    }
}

impl Mul for Pattern {
    type Output = Pattern;
    fn mul(self, other: Pattern) -> Pattern {
        op("Mul", [self, other])
    }
}

impl Div for Pattern {
    type Output = Pattern;
    fn div(self, other: Pattern) -> Pattern {
        op("Div", [self, other])
    }
}

/// An integer attribute or its default.
pub(super) fn int(node: &Node, name: &str, default: i64) -> i64 {
    match node.attrs.get(name) {
        Some(Attr::Int(v)) => *v,
        _ => default,
    }
}

/// A float attribute or its default.
pub(super) fn float(node: &Node, name: &str, default: f32) -> f32 {
    match node.attrs.get(name) {
        Some(Attr::Float(v)) => *v,
        _ => default,
    }
}

/// Whether a node gives the product of its first operand, as it lies, and its second, and adds no more than the third.
pub(super) fn is_plain_product(node: &Node) -> bool {
    let plain = float(node, "alpha", 1.0) == 1.0 && float(node, "beta", 1.0) == 1.0 && int(node, "transA", 0) == 0;
    node.domain.is_empty() && (node.op == "MatMul" || (node.op == "Gemm" && plain))
}

impl Pattern {
    /// How the pattern fits `value`, such that nobody outside reads the values inside.
    pub fn find(&self, graph: &Graph, index: &Index, value: ValueId) -> Option<Match> {
        let closed = |m: &Match| {
            m.nodes.iter().flat_map(|&n| graph.nodes[n].outputs.iter().flatten()).all(|&v| {
                let reads = |&n: &NodeId| graph.nodes[n].uses().into_iter().filter(|&u| u == v).count();
                v == value || m.nodes.iter().map(reads).sum::<usize>() == index.uses(v)
            })
        };
        let mut all = self.fit(graph, index, value, Match::default());
        all.iter_mut().for_each(|m| {
            m.nodes.sort_unstable();
            m.nodes.dedup();
        });
        all.into_iter().find(closed)
    }

    fn fit(&self, graph: &Graph, index: &Index, value: ValueId, so_far: Match) -> Vec<Match> {
        match self {
            Pattern::Var(i) => bind(so_far, *i, value),
            Pattern::Weight(i) if index.constant(graph, value).is_some() => bind(so_far, *i, value),
            Pattern::Scalar(i) if index.scalar(graph, value).is_some() => bind(so_far, *i, value),
            Pattern::Number(n) if is_about(graph, index, value, *n) => vec![so_far],
            Pattern::Either(of) => of.iter().flat_map(|p| p.fit(graph, index, value, so_far.clone())).collect(),
            Pattern::Node { op, inputs, allowed } => {
                let Some(at) = index.producer(value) else { return Vec::new() };
                let node = &graph.nodes[at];
                let given = node.inputs.iter().rposition(|i| i.is_some()).map_or(0, |last| last + 1);
                let same = node.op == *op && node.domain.is_empty() && given == inputs.len() && node.epilogue.is_none();
                if !same || node.outputs.first() != Some(&Some(value)) || !allowed(node) {
                    return Vec::new();
                }
                let mut next = so_far;
                next.nodes.push(at);
                let mut all = in_order(graph, index, inputs.iter(), &node.inputs, &next);
                if matches!(*op, "Add" | "Mul") {
                    all.extend(in_order(graph, index, inputs.iter().rev(), &node.inputs, &next));
                }
                all
            }
            _ => Vec::new(),
        }
    }
}

fn in_order<'p>(
    graph: &Graph,
    index: &Index,
    patterns: impl Iterator<Item = &'p Pattern>,
    values: &[Option<ValueId>],
    from: &Match,
) -> Vec<Match> {
    patterns.zip(values).fold(vec![from.clone()], |all, (p, v)| match v {
        Some(v) => all.into_iter().flat_map(|m| p.fit(graph, index, *v, m)).collect(),
        None => Vec::new(),
    })
}

fn bind(mut so_far: Match, i: usize, value: ValueId) -> Vec<Match> {
    match so_far.vars[i] {
        Some(bound) if bound != value => return Vec::new(),
        _ => so_far.vars[i] = Some(value),
    }
    vec![so_far]
}

/// Equal but for the rounding of the constant's own type.
fn is_about(graph: &Graph, index: &Index, value: ValueId, number: f64) -> bool {
    let half = matches!(index.constant(graph, value).map(|t| t.dtype()), Some(DType::F16 | DType::BF16));
    let tolerance = if half { 4e-3 } else { 2e-5 };
    index.scalar(graph, value).is_some_and(|v| (v - number).abs() <= tolerance * number.abs())
}
