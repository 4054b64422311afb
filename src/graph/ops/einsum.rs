//! Einstein summation: a batched matrix product where the equation is one, else a sum over labelled axes.

use std::collections::HashMap;

use crate::base::Shape;
use crate::error::Result;
use crate::graph::Site;
use crate::graph::problem::gemm::{Contraction, GemmProblem, Matrix};

/// Labels of the axes of each operand and of the output; axes of an ellipsis get labels of their own.
struct Equation {
    operands: Vec<Vec<u32>>,
    out: Vec<u32>,
    sizes: HashMap<u32, usize>,
}

/// First label of the axes behind `...`, counted from the last one.
const ELLIPSIS: u32 = 0x11_0000;

pub(super) fn problem(site: &Site) -> Result<GemmProblem> {
    let equation = parse(site)?;
    let steps: Vec<HashMap<u32, usize>> =
        equation.operands.iter().enumerate().map(|(i, labels)| steps(site, i, labels)).collect::<Result<_>>()?;
    let mut p = contraction(site, &equation, &steps)?;
    if let Some((batch, [m, n, k], swap)) = as_product(&equation, &steps) {
        let size = |l: Option<u32>| l.map_or(1, |l| equation.sizes[&l]);
        let step = |i: usize, l: Option<u32>| l.and_then(|l| steps[i].get(&l)).copied().unwrap_or(0);
        let matrix = |i: usize, row, col| Matrix {
            input: i,
            dtype: p.out,
            row: step(i, row),
            col: step(i, col),
            batch: batch.iter().map(|&l| step(i, Some(l))).collect(),
        };
        let (left, right) = if swap { (1, 0) } else { (0, 1) };
        p.a = matrix(left, m, k);
        p.b = matrix(right, k, n);
        (p.m, p.n, p.k) = (size(m), size(n), size(k));
        p.batch = batch.iter().map(|l| equation.sizes[l]).collect();
        p.contraction = None;
    }
    Ok(p)
}

fn parse(site: &Site) -> Result<Equation> {
    let text: String = site.str("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != site.inputs.len() {
        return Err(site.error(format!("equation {text:?} has {} operands, the node {}", terms.len(), site.inputs.len())));
    }
    let mut sizes = HashMap::new();
    let mut operands = Vec::new();
    let mut widest = 0;
    for (i, term) in terms.iter().enumerate() {
        let shape = &site.ty(i)?.shape;
        let named = term.replace("...", "").chars().count();
        let extra = if term.contains("...") { shape.rank().checked_sub(named) } else { Some(0) };
        let labels = extra.and_then(|e| labels(term, e)).filter(|l| l.len() == shape.rank());
        let labels = labels.ok_or_else(|| site.error(format!("term {term:?} does not fit shape {shape}")))?;
        widest = widest.max(extra.unwrap_or(0));
        for (&label, &size) in labels.iter().zip(shape.iter()) {
            let known = sizes.entry(label).or_insert(size);
            if *known == 1 {
                *known = size;
            } else if *known != size && size != 1 {
                return Err(site.error(format!("equation {text:?} gives one label the sizes {known} and {size}")));
            }
        }
        operands.push(labels);
    }
    let out = match right {
        Some(r) => labels(r, widest).ok_or_else(|| site.error(format!("output {r:?} cannot be read")))?,
        None => implicit(&operands, widest),
    };
    if out.iter().any(|l| !sizes.contains_key(l)) || (1..out.len()).any(|i| out[..i].contains(&out[i])) {
        return Err(site.error(format!("output of {text:?} has an unknown or repeated label")));
    }
    Ok(Equation { operands, out, sizes })
}

/// The labels of a term whose ellipsis stands for `extra` axes.
fn labels(term: &str, extra: usize) -> Option<Vec<u32>> {
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    if before.contains('.') || after.contains('.') {
        return None;
    }
    let extra = if term.contains("...") { extra as u32 } else { 0 };
    let ellipsis = (0..extra).rev().map(|i| ELLIPSIS + i);
    Some(before.chars().map(u32::from).chain(ellipsis).chain(after.chars().map(u32::from)).collect())
}

/// Without an arrow: the ellipsis, then the labels that occur once, in alphabetical order.
fn implicit(operands: &[Vec<u32>], widest: usize) -> Vec<u32> {
    let all: Vec<u32> = operands.iter().flatten().copied().collect();
    let mut once: Vec<u32> =
        all.iter().copied().filter(|&l| l < ELLIPSIS && all.iter().filter(|&&o| o == l).count() == 1).collect();
    once.sort_unstable();
    (0..widest as u32).rev().map(|i| ELLIPSIS + i).chain(once).collect()
}

/// Step of each label in operand `i`: labels that repeat walk the diagonal, axes of size 1 stand still.
fn steps(site: &Site, i: usize, labels: &[u32]) -> Result<HashMap<u32, usize>> {
    let shape = &site.ty(i)?.shape;
    let strides = shape.strides();
    let mut steps = HashMap::new();
    for (axis, &label) in labels.iter().enumerate() {
        *steps.entry(label).or_insert(0) += if shape[axis] == 1 { 0 } else { strides[axis] };
    }
    Ok(steps)
}

fn contraction(site: &Site, e: &Equation, steps: &[HashMap<u32, usize>]) -> Result<GemmProblem> {
    let out = site.ty(0)?.dtype;
    if (1..site.inputs.len()).any(|i| site.ty(i).map(|t| t.dtype).is_ok_and(|d| d != out)) {
        return Err(site.error("operands differ in type"));
    }
    let mut order = e.out.clone();
    for &l in e.operands.iter().flatten() {
        if !order.contains(&l) {
            order.push(l);
        }
    }
    let matrix = |input| Matrix { input, dtype: out, row: 0, col: 0, batch: Default::default() };
    Ok(GemmProblem {
        batch: Shape::scalar(),
        m: 1,
        n: 1,
        k: 1,
        a: matrix(0),
        b: matrix(site.inputs.len() - 1),
        b_as: out,
        pick: None,
        two_of_four: false,
        b_scale: None,
        c: None,
        alpha: 1.0,
        beta: 1.0,
        quant: None,
        top: None,
        widths: Vec::new(),
        contraction: Some(Contraction {
            sizes: order.iter().map(|l| e.sizes[l]).collect(),
            kept: e.out.len(),
            steps: steps.iter().map(|s| order.iter().map(|l| s.get(l).copied().unwrap_or(0)).collect()).collect(),
        }),
        out,
        shape: e.out.iter().map(|l| e.sizes[l]).collect(),
        inputs: site.inputs.len(),
        epilogue: None,
    })
}

/// Batch labels, labels of m, n, k, and whether the operands change places; `None` when the equation is no batched product.
type Product = (Vec<u32>, [Option<u32>; 3], bool);

fn as_product(e: &Equation, steps: &[HashMap<u32, usize>]) -> Option<Product> {
    let [a, b] = &steps else { return None };
    let mut summed: Vec<u32> = a.keys().chain(b.keys()).copied().filter(|l| !e.out.contains(l)).collect();
    summed.sort_unstable();
    summed.dedup();
    let k = match summed[..] {
        [] => None,
        [k] if a.contains_key(&k) && b.contains_key(&k) => Some(k),
        _ => return None,
    };
    let only = |l: u32, own: &HashMap<u32, usize>, other: &HashMap<u32, usize>| own.contains_key(&l) && !other.contains_key(&l);
    let [rest @ .., x, y] = &e.out[..] else { return None };
    let swap = match (only(*x, a, b) && only(*y, b, a), only(*x, b, a) && only(*y, a, b)) {
        (true, _) => false,
        (_, true) => true,
        _ => return None,
    };
    Some((rest.to_vec(), [Some(*x), Some(*y), k], swap))
}
