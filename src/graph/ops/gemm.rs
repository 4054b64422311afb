//! Matrix products.

use smallvec::SmallVec;

use super::einsum;
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::op::{Lower, Refusal};
use crate::graph::problem::gemm::{Dynamic, GemmProblem, Matrix, Param, Quant};
use crate::graph::{OpDef, Problem, Site, Type};

const MS: &str = "com.microsoft";

type Build = fn(&Site) -> Result<GemmProblem>;

/// Each operator's problem, from which its output type comes too.
const BUILDS: [(&str, &str, Build); 12] = [
    ("", "MatMul", matmul),
    ("", "Gemm", gemm),
    ("", "MatMulInteger", matmul_integer),
    ("", "QLinearMatMul", qlinear_matmul),
    (MS, "QGemm", qgemm),
    (MS, "DynamicQuantizeMatMul", dynamic_quantize_matmul),
    (MS, "MatMulIntegerToFloat", matmul_integer_to_float),
    (MS, "FusedMatMul", fused_matmul),
    ("halfbyte", "Linear", linear),
    ("", "Einsum", einsum::problem),
    ("halfbyte", "LinearInt8", linear_int8),
    ("halfbyte", "LinearStored", linear_stored),
];

pub(super) static OPS: &[OpDef] =
    &[row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7), row(8), row(9), row(10), row(11)];

const fn row(i: usize) -> OpDef {
    let (domain, name, _) = BUILDS[i];
    OpDef { domain, name, infer, lower: Lower::Family(lower) }
}

fn build(site: &Site) -> Result<GemmProblem> {
    named(site, site.node.op.as_str())
}

/// The problem that the inputs of a node are to the operator `op`.
pub(super) fn named(site: &Site, op: &str) -> Result<GemmProblem> {
    let found = BUILDS.iter().find(|(_, name, _)| *name == op);
    let (_, _, make) = found.ok_or_else(|| site.error("no matrix product"))?;
    make(site)
}

fn infer(site: &Site) -> Result<Vec<Type>, Refusal> {
    let p = build(site)?;
    let with = |columns: Option<usize>| {
        let mut shape = p.shape.clone();
        shape.last_mut().into_iter().zip(columns).for_each(|(last, n)| *last = n);
        Type::new(p.out, shape)
    };
    Ok(if p.widths.is_empty() { vec![with(None)] } else { p.widths.iter().map(|&n| with(Some(n))).collect() })
}

fn lower(site: &Site, _: &[Type]) -> Result<Problem> {
    Ok(Problem::Gemm(build(site)?.folded()))
}

/// Whether a flag attribute is set.
fn flag(site: &Site, name: &str) -> bool {
    site.int(name, 0) != 0
}

/// The product of inputs `ia` and `ib`, by numpy's rules for one-dimensional operands and batch axes.
fn product(site: &Site, ia: usize, ib: usize, trans: (bool, bool)) -> Result<GemmProblem> {
    let (ta, tb) = (site.ty(ia)?, site.ty(ib)?);
    let (mut sa, mut sb) = (ta.shape.clone(), tb.shape.clone());
    if sa.rank() == 0 || sb.rank() == 0 {
        return Err(site.error("a scalar is no operand of a matrix product"));
    }
    let (vector_a, vector_b) = (sa.rank() == 1, sb.rank() == 1);
    if vector_a {
        sa.insert(0, 1);
    }
    if vector_b {
        sb.push(1);
    }
    let (ra, rb) = (sa.rank(), sb.rank());
    let (ca, cb) = (sa[ra - 1], sb[rb - 1]);
    let (m, k, row_a, col_a) = if trans.0 { (ca, sa[ra - 2], 1, ca) } else { (sa[ra - 2], ca, ca, 1) };
    let (kb, n, row_b, col_b) = if trans.1 { (cb, sb[rb - 2], 1, cb) } else { (sb[rb - 2], cb, cb, 1) };
    if k != kb {
        return Err(site.error(format!("{} x {}: inner sizes {k} and {kb} differ", ta.shape, tb.shape)));
    }
    let (lead_a, lead_b) = (Shape::from(&sa[..ra - 2]), Shape::from(&sb[..rb - 2]));
    let batch = lead_a
        .broadcast(&lead_b)
        .ok_or_else(|| site.error(format!("batch axes of {} and {} do not broadcast", ta.shape, tb.shape)))?;
    let mut shape = batch.clone();
    if !vector_a {
        shape.push(m);
    }
    if !vector_b {
        shape.push(n);
    }
    let matrix = |input, ty: &Type, row, col, lead: &Shape, size: usize| Matrix {
        input,
        dtype: ty.dtype,
        row,
        col,
        batch: scaled(lead, &batch, size),
    };
    Ok(GemmProblem {
        m,
        n,
        k,
        a: matrix(ia, ta, row_a, col_a, &lead_a, m * k),
        b: matrix(ib, tb, row_b, col_b, &lead_b, k * n),
        b_as: tb.dtype,
        pick: None,
        two_of_four: false,
        b_scale: None,
        c: None,
        alpha: 1.0,
        beta: 1.0,
        quant: None,
        top: None,
        widths: Vec::new(),
        contraction: None,
        out: ta.dtype,
        shape,
        inputs: site.inputs.len(),
        epilogue: None,
        batch,
    })
}

/// Steps over `to` of an operand whose batch axes are `lead` and whose matrices hold `size` elements.
fn scaled(lead: &Shape, to: &Shape, size: usize) -> SmallVec<[usize; 4]> {
    let steps = lead.broadcast_strides(to).unwrap_or_default();
    steps.iter().map(|&s| s * size).collect()
}

fn plain(site: &Site, p: &GemmProblem) -> Result<()> {
    if p.a.dtype != p.b.dtype || p.a.dtype == DType::Bool {
        return Err(site.error(format!("operands are {} and {}", p.a.dtype, p.b.dtype)));
    }
    Ok(())
}

fn matmul(site: &Site) -> Result<GemmProblem> {
    let p = product(site, 0, 1, (false, false))?;
    plain(site, &p)?;
    Ok(p)
}

fn fused_matmul(site: &Site) -> Result<GemmProblem> {
    if flag(site, "transBatchA") || flag(site, "transBatchB") {
        return Err(site.unsupported("transposed batch axes"));
    }
    let mut p = product(site, 0, 1, (flag(site, "transA"), flag(site, "transB")))?;
    plain(site, &p)?;
    p.alpha = site.float("alpha", 1.0);
    Ok(p)
}

/// Input `i`, if given, as an addend that broadcasts to the output.
fn addend(site: &Site, i: usize, p: &GemmProblem) -> Result<Option<Matrix>> {
    let Some(operand) = site.input(i) else { return Ok(None) };
    let mut full = p.batch.clone();
    full.push(p.m);
    full.push(p.n);
    let steps = operand
        .ty
        .shape
        .broadcast_strides(&full)
        .ok_or_else(|| site.error(format!("input {i} of shape {} does not broadcast to {full}", operand.ty.shape)))?;
    let lead = p.batch.rank();
    Ok(Some(Matrix {
        input: i,
        dtype: operand.ty.dtype,
        row: steps[lead],
        col: steps[lead + 1],
        batch: steps[..lead].iter().copied().collect(),
    }))
}

fn matrices(site: &Site, ia: usize, ib: usize) -> Result<GemmProblem> {
    let (a, b) = (&site.ty(ia)?.shape, &site.ty(ib)?.shape);
    if a.rank() != 2 || b.rank() != 2 {
        return Err(site.error(format!("operands of shapes {a} and {b} are not matrices")));
    }
    product(site, ia, ib, (flag(site, "transA"), flag(site, "transB")))
}

fn gemm(site: &Site) -> Result<GemmProblem> {
    let mut p = matrices(site, 0, 1)?;
    plain(site, &p)?;
    p.c = addend(site, 2, &p)?;
    if let Some(c) = p.c.as_ref().filter(|c| c.dtype != p.out) {
        return Err(site.error(format!("C is {}, the product {}", c.dtype, p.out)));
    }
    p.alpha = site.float("alpha", 1.0);
    p.beta = site.float("beta", 1.0);
    Ok(p)
}

/// Input `i`, if given, as a parameter: one value, one for each of `count` rows or columns, or that for each batch.
/// `axis` is where the rows (1) or columns (2) stand from the end in the batched form.
fn param(site: &Site, i: usize, p: &GemmProblem, count: usize, columns: bool) -> Result<Option<Param>> {
    let Some(operand) = site.input(i) else { return Ok(None) };
    let shape = &operand.ty.shape;
    let made = |step, batch| Ok(Some(Param { input: i, dtype: operand.ty.dtype, step, batch }));
    let none: SmallVec<[usize; 4]> = SmallVec::from_elem(0, p.batch.rank());
    if shape.numel() == 1 {
        return made(0, none);
    }
    if shape.rank() == 1 && shape[0] == count {
        return made(1, none);
    }
    let mut full = p.batch.clone();
    full.push(if columns { 1 } else { count });
    full.push(if columns { count } else { 1 });
    let lead = p.batch.rank();
    match shape.broadcast_strides(&full) {
        Some(steps) => made(steps[lead] + steps[lead + 1], steps[..lead].iter().copied().collect()),
        None => Err(site.error(format!("input {i} of shape {shape} is neither one value nor {count}"))),
    }
}

fn bytes_only(site: &Site, p: &GemmProblem) -> Result<()> {
    let byte = |d| matches!(d, DType::I8 | DType::U8);
    let zeros = p.quant.iter().flat_map(|q| [&q.a_zero, &q.b_zero, &q.out_zero]).flatten();
    if let Some(zero) = zeros.into_iter().find(|z| !byte(z.dtype)) {
        return Err(site.error(format!("zero point (input {}) is {}, not an 8-bit integer", zero.input, zero.dtype)));
    }
    if !byte(p.out) && !matches!(p.out, DType::I32 | DType::F32) {
        return Err(site.error(format!("output cannot be {}", p.out)));
    }
    if byte(p.b.dtype) && (byte(p.a.dtype) || p.quant.as_ref().is_some_and(|q| q.dynamic.is_some())) {
        return Ok(());
    }
    Err(site.error(format!("operands are {} and {}, not 8-bit integers", p.a.dtype, p.b.dtype)))
}

fn matmul_integer(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 1, (false, false))?;
    p.quant = Some(Quant { a_zero: param(site, 2, &p, p.m, false)?, b_zero: param(site, 3, &p, p.n, true)?, ..Quant::default() });
    p.out = DType::I32;
    bytes_only(site, &p)?;
    Ok(p)
}

/// Scale and zero point of A after it, of B after it, and of the output from input `out` on.
fn scales(site: &Site, p: &GemmProblem, out: usize) -> Result<Quant> {
    Ok(Quant {
        dynamic: None,
        a_scale: param(site, 1, p, p.m, false)?,
        a_zero: param(site, 2, p, p.m, false)?,
        b_scale: param(site, 4, p, p.n, true)?,
        b_zero: param(site, 5, p, p.n, true)?,
        out_scale: param(site, out, p, 1, true)?,
        out_zero: param(site, out + 1, p, 1, true)?,
    })
}

fn qlinear_matmul(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 3, (false, false))?;
    p.quant = Some(scales(site, &p, 6)?);
    p.out = site.ty(7)?.dtype;
    bytes_only(site, &p)?;
    Ok(p)
}

fn qgemm(site: &Site) -> Result<GemmProblem> {
    let mut p = matrices(site, 0, 3)?;
    p.quant = Some(scales(site, &p, 7)?);
    p.c = addend(site, 6, &p)?;
    if p.c.as_ref().is_some_and(|c| c.dtype != DType::I32) {
        return Err(site.error("C must hold i32"));
    }
    p.alpha = site.float("alpha", 1.0);
    // Without an output scale the result stays a float.
    p.out = match (site.input(7), site.input(8)) {
        (None, _) => DType::F32,
        (Some(_), Some(zero)) => zero.ty.dtype,
        (Some(_), None) => p.a.dtype,
    };
    bytes_only(site, &p)?;
    Ok(p)
}

fn dynamic_quantize_matmul(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 1, (false, false))?;
    p.quant = Some(Quant {
        dynamic: Some(Dynamic::TensorU8),
        b_scale: param(site, 2, &p, p.n, true)?,
        b_zero: param(site, 3, &p, p.n, true)?,
        ..Quant::default()
    });
    p.c = addend(site, 4, &p)?;
    p.out = DType::F32;
    float_a(site, &p)?;
    bytes_only(site, &p)?;
    Ok(p)
}

fn float_a(site: &Site, p: &GemmProblem) -> Result<()> {
    if p.a.dtype == DType::F32 { Ok(()) } else { Err(site.error(format!("A is {}, not f32", p.a.dtype))) }
}

fn matmul_integer_to_float(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 1, (false, false))?;
    p.quant = Some(Quant {
        a_scale: param(site, 2, &p, p.m, false)?,
        b_scale: param(site, 3, &p, p.n, true)?,
        a_zero: param(site, 4, &p, p.m, false)?,
        b_zero: param(site, 5, &p, p.n, true)?,
        ..Quant::default()
    });
    p.c = addend(site, 6, &p)?;
    p.out = DType::F32;
    bytes_only(site, &p)?;
    Ok(p)
}

/// Makes a product one by several matrices, whose columns `widths` says: those after the first are the inputs from 4 on.
fn beside(site: &Site, p: &mut GemmProblem) -> Result<()> {
    let Some(widths) = site.ints("widths") else { return Ok(()) };
    let all: Vec<usize> = widths.iter().filter_map(|&w| usize::try_from(w).ok()).collect();
    let fits = |i: usize| {
        let ty = site.ty(if i == 0 { 1 } else { 3 + i })?;
        Ok(ty.dtype == p.b.dtype && ty.shape[..] == [p.k, all[i]])
    };
    let as_many = all.len() == widths.len() && (all.len() == 1 || all.len() + 3 == site.inputs.len()) && p.b.col == 1;
    if !as_many || !(0..all.len()).map(fits).collect::<Result<Vec<bool>>>()?.into_iter().all(|fits| fits) {
        return Err(site.error(format!("the matrices have not the columns {widths:?}")));
    }
    p.n = all.iter().sum();
    p.b.row = p.n;
    p.shape.last_mut().into_iter().for_each(|last| *last = p.n);
    p.widths = all;
    Ok(())
}

/// A product of f32 rows, quantised one by one, with 8-bit weights: A, B, B's scales, C; `transB`. `rows` says "symmetric" or "asymmetric".
/// With `widths` it is the products of the same rows by as many matrices, B and those after C, and has as many outputs; scales and C are of all columns.
fn linear_int8(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 1, (false, flag(site, "transB")))?;
    float_a(site, &p)?;
    beside(site, &mut p)?;
    let dynamic = match site.str("rows", "symmetric") {
        "symmetric" => Dynamic::RowI8,
        "asymmetric" => Dynamic::RowU8,
        other => return Err(site.error(format!("rows {other:?} is unknown"))),
    };
    p.quant = Some(Quant { dynamic: Some(dynamic), b_scale: param(site, 2, &p, p.n, true)?, ..Quant::default() });
    p.c = addend(site, 3, &p)?;
    p.out = DType::F32;
    bytes_only(site, &p)?;
    Ok(p)
}

/// A product of f32 with weights as they are stored, f16, bf16, or i8 with scales by column: A, B, B's scales, C; `transB`.
fn linear_stored(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 1, (false, flag(site, "transB")))?;
    float_a(site, &p)?;
    p.b_scale = param(site, 2, &p, p.n, true)?;
    p.c = addend(site, 3, &p)?;
    match (p.b.dtype, &p.b_scale) {
        (DType::F16 | DType::BF16, None) | (DType::I8, Some(Param { dtype: DType::F32, .. })) => Ok(p),
        (dtype, _) => Err(site.error(format!("weights of {dtype}, or without the scales that they need"))),
    }
}

/// A product with constant weights, of lowered precision where `weight_precision` says "f16" or "int8"; `transB`.
fn linear(site: &Site) -> Result<GemmProblem> {
    let mut p = product(site, 0, 1, (false, flag(site, "transB")))?;
    float_a(site, &p)?;
    plain(site, &p)?;
    p.c = addend(site, 2, &p)?;
    match site.str("weight_precision", "f32") {
        "f32" => {}
        "f16" => p.b_as = DType::F16,
        "int8" => {
            p.b_as = DType::I8;
            p.quant = Some(Quant { dynamic: Some(Dynamic::RowI8), ..Quant::default() });
        }
        other => return Err(site.error(format!("weight_precision {other:?} is unknown"))),
    }
    Ok(p)
}
