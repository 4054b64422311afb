//! Products of 8-bit integers: bytes for the kernels to multiply, and what takes their exact sums to results.
//!
//! A is s8 or u8 as stored or as dynamically quantised; B is s8 always: of a u8 B 128 is taken off, which its zero point makes good.
//! For each row of A and each column of B there is a record of 16 bytes, `{ sum: i32, zero: i32, scale: f32, add: i32 }`, so that
//!
//! ```text
//! sum (a - a_zero) (b - b_zero) + C = sum a b + column.add - column.zero * row.sum - row.zero * column.sum
//! result = (that as f32) * (row.scale * column.scale)
//! ```
//!
//! with `row.sum = sum a - K a_zero` and `column.sum = sum b`, all in wrapping i32, and the scales multiplied in the order of the
//! CPU's kernels, so that results are theirs bit for bit. Where rows or columns need no record there is none: a null address.

use super::super::device::failed;
use super::super::launch::{Arg, Launch, Pointer};
use super::super::variant::Variant;
use super::batch::own;
use super::operand::{Operand, Preparation, Side, axes, pitch, source};
use crate::base::DType;
use crate::error::Result;
use crate::graph::problem::gemm::{Dynamic, GemmProblem, Param, Quant};

/// Records of rows or columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The first; null when there are none.
    pub at: Pointer,
    /// Records from one matrix to the next along each batch axis of the problem.
    pub batch: Vec<usize>,
}

impl Terms {
    fn none(p: &GemmProblem) -> Terms {
        Terms { at: Pointer::Null, batch: vec![0; p.batch.rank()] }
    }
}

/// The records of both sides.
#[derive(Debug, Clone)]
pub struct Records {
    /// Of A's rows.
    pub rows: Terms,
    /// Of B's columns.
    pub columns: Terms,
    /// Whether they change the integer sum, not only its scale.
    pub corrects: bool,
}

impl Records {
    /// Of products that need none.
    pub fn none(p: &GemmProblem) -> Records {
        Records { rows: Terms::none(p), columns: Terms::none(p), corrects: false }
    }
}

/// How the records of one side are made.
#[derive(Default)]
struct Recipe<'a> {
    /// Records to begin with.
    base: Option<Terms>,
    /// Whether the sums of the operand's bytes are to be taken.
    sums: bool,
    /// How often the zero point is taken off the sum.
    k_times: usize,
    zero: Option<&'a Param>,
    /// Added to the zero point.
    shift: i32,
    first: Option<&'a Param>,
    alpha: f32,
    second: Option<&'a Param>,
    divisor: Option<&'a Param>,
    /// C's input and its step from column to column.
    add: Option<(usize, usize)>,
}

impl Recipe<'_> {
    /// Whether the base says it all.
    fn is_base(&self) -> bool {
        let params = [self.zero, self.first, self.second, self.divisor];
        params.iter().all(Option::is_none) && self.shift == 0 && self.alpha == 1.0 && self.add.is_none()
    }
}

/// Makes the bytes and records of a quantised product whose parameters the rows of the kernel table take.
pub fn prepare(to: &mut Preparation, packed: bool) -> Result<(Operand, Operand, Records)> {
    let p = to.p;
    let q = p.quant.as_ref().ok_or_else(|| failed("a product that is not quantised"))?;
    let shift = shift(p);
    let (row_sums, column_sums) =
        (q.b_zero.is_some() || shift != 0, q.a_zero.is_some() || matches!(q.dynamic, Some(Dynamic::TensorU8 | Dynamic::RowU8)));
    let add = p.c.as_ref().filter(|c| c.dtype == DType::I32).map(|c| (c.input, c.col));
    let (a, dynamic) = match q.dynamic {
        Some(how) => quantize(to, Side::A, how).map(|(a, terms)| (a, Some(terms)))?,
        None => (to.operand(Side::A, p.a.dtype, false)?, None),
    };
    let (b, base) = match (packed, p.b.dtype) {
        (true, _) => (to.operand(Side::B, DType::I8, true)?, Some(packed_terms(p, 1))),
        (_, DType::F32) => quantize(to, Side::B, Dynamic::RowI8).map(|(b, terms)| (b, Some(terms)))?,
        _ => (to.operand(Side::B, DType::I8, false)?, None),
    };
    let (mut rows, mut columns) = recipes(p, q);
    (rows.sums, rows.base) = (row_sums, dynamic);
    (columns.sums, columns.shift, columns.add) = (column_sums, shift, add);
    columns.base = base.filter(|_| column_sums || p.b.dtype == DType::F32);
    let rows = records(to, Side::A, &a, rows)?;
    let columns = records(to, Side::B, &b, columns)?;
    Ok((a, b, Records { rows, columns, corrects: row_sums || column_sums || add.is_some() }))
}

/// Rows of a float A, each as u8 by its own range, and their records.
pub fn rows(to: &mut Preparation) -> Result<(Operand, Terms)> {
    quantize(to, Side::A, Dynamic::RowU8)
}

/// An 8-bit B and records of its columns, with their sums: for rows of zero points of their own. `packed`: where B was packed, the
/// first of its two parts.
pub fn columns(to: &mut Preparation, packed: Option<usize>) -> Result<(Operand, Terms)> {
    let p = to.p;
    let q = p.quant.as_ref().ok_or_else(|| failed("a product that is not quantised"))?;
    let mut b = to.operand(Side::B, DType::I8, packed.is_some())?;
    let mut recipe = recipes(p, q).1;
    (recipe.sums, recipe.shift) = (true, shift(p));
    if let Some(part) = packed {
        b.at = Pointer::Packed(part, 0);
        recipe.base = Some(packed_terms(p, part + 1));
    }
    let terms = records(to, Side::B, &b, recipe)?;
    Ok((b, terms))
}

/// Added to B's zero points: of a u8 B 128 is taken off.
fn shift(p: &GemmProblem) -> i32 {
    if p.b.dtype == DType::U8 { -128 } else { 0 }
}

/// The records of a packed B's columns.
fn packed_terms(p: &GemmProblem, part: usize) -> Terms {
    Terms { at: Pointer::Packed(part, 0), batch: own(&p.batch, &[&p.b.batch], p.n).1 }
}

/// Zero points and scales of both sides. One for all goes to the other side's records, where the output's scale divides.
fn recipes<'a>(p: &GemmProblem, q: &'a Quant) -> (Recipe<'a>, Recipe<'a>) {
    let mut rows = Recipe { zero: q.a_zero.as_ref(), k_times: p.k, alpha: 1.0, ..Recipe::default() };
    let mut columns = Recipe { zero: q.b_zero.as_ref(), alpha: 1.0, ..Recipe::default() };
    if p.out == DType::I32 {
        return (rows, columns);
    }
    let (first, second, divisor) = (q.a_scale.as_ref(), q.b_scale.as_ref(), q.out_scale.as_ref());
    let second = second.filter(|_| p.b.dtype != DType::F32);
    match q.dynamic.is_none() && Param::is_one(q.a_scale.as_ref()) {
        true => (columns.first, columns.alpha, columns.second, columns.divisor) = (first, p.alpha, second, divisor),
        // The quantisation takes alpha into its scales.
        false if q.dynamic.is_some() => columns.second = second,
        false if divisor.is_some() => (rows.first, rows.alpha, rows.second, rows.divisor) = (first, p.alpha, second, divisor),
        false => (rows.first, rows.alpha, columns.second) = (first, p.alpha, second),
    }
    (rows, columns)
}

fn records(to: &mut Preparation, side: Side, operand: &Operand, recipe: Recipe) -> Result<Terms> {
    let p = to.p;
    if recipe.is_base() && (recipe.base.is_some() || !recipe.sums) {
        return Ok(recipe.base.unwrap_or_else(|| Terms::none(p)));
    }
    let none = vec![0; p.batch.rank()];
    let from = match (&recipe.base, recipe.sums) {
        (Some(base), _) => &base.batch,
        (None, true) => &operand.batch,
        _ => &none,
    };
    let param = |q: Option<&Param>| q.map_or(none.clone(), |q| q.batch.to_vec());
    let steps = [from.clone(), param(recipe.zero), param(recipe.first), param(recipe.second)];
    let count = source(p, side).rows;
    let (shape, batch) = own(&p.batch, &steps.each_ref().map(|s| &s[..]), count);
    let records = shape.numel() * count;
    let at = to.take(records * 16);
    let sums = recipe.sums && recipe.base.is_none();
    let pointer = |q: Option<&Param>| Arg::Pointer(q.map_or(Pointer::Null, |q| Pointer::Input(q.input, 0)));
    let step = |q: Option<&Param>| Arg::U32(q.map_or(0, |q| q.step) as u32);
    let is = |t: bool| Arg::U32(t.into());
    let args = vec![
        Arg::Pointer(recipe.base.as_ref().map_or(Pointer::Null, |b| b.at)),
        Arg::Pointer(if sums { operand.at } else { Pointer::Null }),
        pointer(recipe.zero),
        pointer(recipe.first),
        pointer(recipe.second),
        pointer(recipe.divisor),
        Arg::Pointer(recipe.add.map_or(Pointer::Null, |(input, _)| Pointer::Input(input, 0))),
        Arg::Pointer(at),
        Arg::U32(count as u32),
        Arg::U32(p.k.div_ceil(16) as u32),
        Arg::U32(operand.pitch as u32),
        Arg::U32(recipe.k_times as u32),
        is(operand.dtype == DType::I8),
        is(recipe.zero.is_some_and(|z| z.dtype == DType::I8)),
        Arg::U32(recipe.shift as u32),
        step(recipe.zero),
        step(recipe.first),
        step(recipe.second),
        Arg::U32(recipe.add.map_or(0, |(_, step)| step) as u32),
        Arg::F32(recipe.alpha),
        axes(&shape, &steps)?.argument(),
    ];
    let variant = Variant::named("gemm_terms");
    let grid = [count.div_ceil((variant.threads / 32) as usize) as u32, 1, shape.numel() as u32];
    to.launches.push(Launch::new(variant, grid, args));
    Ok(Terms { at, batch })
}

/// A side of f32 rounded to bytes while running, with the records of its rows.
fn quantize(to: &mut Preparation, side: Side, how: Dynamic) -> Result<(Operand, Terms)> {
    let source = source(to.p, side);
    match how {
        Dynamic::RowI8 => round(to, side, DType::I8, "gemm_quantize_s8", (Pointer::Null, 0)),
        Dynamic::RowU8 => round(to, side, DType::U8, "gemm_quantize_rows_u8", (Pointer::Null, 0)),
        Dynamic::TensorU8 => {
            let rows = to.dense(&source, DType::U8).0.numel() * source.rows;
            let ranges = range(to, &Arg::Pointer(Pointer::Input(source.matrix.input, 0)), rows * to.p.k);
            round(to, side, DType::U8, "gemm_quantize_u8", ranges)
        }
    }
}

/// Rounds a side to `dtype` by the kernel of this name. Records of its rows: sums less K times the zero point, zero point, and scale
/// with alpha (of A). `ranges`: parts' ranges where the tensor has one scale, and how many.
fn round(to: &mut Preparation, side: Side, dtype: DType, name: &str, ranges: (Pointer, usize)) -> Result<(Operand, Terms)> {
    let p = to.p;
    let source = source(p, side);
    let (shape, batch) = to.dense(&source, dtype);
    let pitch = pitch(p.k, dtype);
    let rows = shape.numel() * source.rows;
    let (bytes, terms) = (to.take(rows * pitch), to.take(rows * 16));
    let numbers = [ranges.1, p.k, pitch, source.row, source.step].map(|v| Arg::U32(v as u32));
    let mut args = [Pointer::Input(source.matrix.input, 0), bytes, terms, ranges.0].map(Arg::Pointer).to_vec();
    args.extend(numbers);
    args.push(Arg::F32(if side == Side::A { p.alpha } else { 1.0 }));
    args.push(axes(&shape, &[source.matrix.batch.to_vec()])?.argument());
    to.launches.push(Launch::new(Variant::named(name), [source.rows as u32, 1, shape.numel() as u32], args));
    let (_, term_steps) = own(&p.batch, &[&source.matrix.batch], source.rows);
    let operand = Operand { at: bytes, dtype, pitch, batch };
    Ok((operand, Terms { at: terms, batch: term_steps }))
}

/// Smallest and largest of parts of a tensor, each with 0: where they lie, and how many.
fn range(to: &mut Preparation, input: &Arg, elements: usize) -> (Pointer, usize) {
    let variant = Variant::named("gemm_range");
    let parts = elements.div_ceil(variant.threads as usize * 8).clamp(1, variant.threads as usize);
    let at = to.take(parts * 8);
    let args = vec![input.clone(), Arg::Pointer(at), Arg::U32(elements as u32)];
    to.launches.push(Launch::new(variant, [parts as u32, 1, 1], args));
    (at, parts)
}
