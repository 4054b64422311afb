//! Adapters of low rank (LoRA), one for each item of a batch: the grouped products of S-LoRA and Punica (Sheng and others; Chen and others, 2023).

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::op::{Lower, Refusal};
use crate::graph::problem::gemm::{GemmProblem, Matrix, Pick};
use crate::graph::{Feed, OpDef, Parts, Problem, Site, Type};

/// `halfbyte:LoRA`: y + (x A) B for inputs x `[batch, .., k]`, y `[batch, .., n]`, the number of the adapter `[batch]` of i32 (-1 for none), A
/// `[adapters, k, rank]` and B `[adapters, rank, n]`. Adapters of a smaller rank have zeros beyond theirs.
pub(super) static OPS: &[OpDef] = &[OpDef { domain: "halfbyte", name: "LoRA", infer, lower: Lower::Parts(lower) }];

const X: usize = 0;
const Y: usize = 1;
const NUMBER: usize = 2;
const A: usize = 3;
const B: usize = 4;

/// Extents of the two products.
struct Sizes {
    batch: usize,
    /// Of x and y, of one item of the batch.
    rows: usize,
    adapters: usize,
    /// Of their numbers.
    number: DType,
    k: usize,
    rank: usize,
    n: usize,
}

fn sizes(site: &Site) -> Result<Sizes> {
    let [x, y, number, a, b] = [site.ty(X)?, site.ty(Y)?, site.ty(NUMBER)?, site.ty(A)?, site.ty(B)?];
    let bad = || site.error(format!("x {}, y {}, numbers {}, A {}, B {}", x.shape, y.shape, number.shape, a.shape, b.shape));
    let (&[batch], &[adapters, k, rank], &[stack, inner, n]) = (&number.shape[..], &a.shape[..], &b.shape[..]) else {
        return Err(bad());
    };
    let rows = |t: &Type| t.shape.iter().rev().skip(1).product::<usize>();
    let each = rows(x) / batch.max(1);
    let widths = (x.shape.last(), y.shape.last()) == (Some(&k), Some(&n));
    if (stack, inner) != (adapters, rank) || !widths || rows(y) != rows(x) || each * batch != rows(x) {
        return Err(bad());
    }
    if [x, y].iter().any(|t| t.dtype != DType::F32) || !matches!(number.dtype, DType::I32 | DType::I64) || a.dtype != b.dtype {
        return Err(site.error(format!("x {}, y {}, numbers {}, A {}, B {}", x.dtype, y.dtype, number.dtype, a.dtype, b.dtype)));
    }
    Ok(Sizes { batch, rows: each, adapters, number: number.dtype, k, rank, n })
}

fn infer(site: &Site) -> Result<Vec<Type>, Refusal> {
    sizes(site)?;
    Ok(vec![site.ty(Y)?.clone()])
}

/// One product for each item of the batch: a dense A of m x k with a matrix out of a stack, plus C where there is one.
fn grouped(s: &Sizes, k: usize, n: usize, stack: DType, c: bool, shape: Shape) -> GemmProblem {
    let matrix =
        |input, dtype, width: usize, step| Matrix { input, dtype, row: width, col: 1, batch: [step].into_iter().collect() };
    GemmProblem {
        batch: Shape::from([s.batch]),
        m: s.rows,
        n,
        k,
        a: matrix(0, DType::F32, k, s.rows * k),
        b: matrix(1, stack, n, 0),
        b_as: stack,
        b_scale: None,
        pick: Some(Pick { input: 2, dtype: s.number, count: s.adapters }),
        two_of_four: false,
        c: c.then(|| matrix(3, DType::F32, n, s.rows * n)),
        alpha: 1.0,
        beta: 1.0,
        quant: None,
        top: None,
        widths: Vec::new(),
        contraction: None,
        out: DType::F32,
        shape,
        inputs: 3 + usize::from(c),
        epilogue: None,
    }
}

fn lower(site: &Site, out: &[Type]) -> Result<Parts> {
    let (s, stack) = (sizes(site)?, site.ty(A)?.dtype);
    let input = |i: usize| Some(Feed::Input(i));
    let inner = Shape::from([s.batch, s.rows, s.rank]);
    let down = Problem::Gemm(grouped(&s, s.k, s.rank, stack, false, inner.clone()));
    let up = Problem::Gemm(grouped(&s, s.rank, s.n, stack, true, site.ty(Y)?.shape.clone()));
    let mut parts = Parts::default();
    let inner = parts.add(down, vec![input(X), input(A), input(NUMBER)], vec![Type::new(DType::F32, inner)]);
    let y = parts.add(up, vec![Some(inner), input(B), input(NUMBER), input(Y)], out.to_vec());
    parts.outputs.push(y);
    Ok(parts)
}
