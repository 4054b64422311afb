//! The exact 8-bit kernels: stored or dynamic A, stored or rounded B, zero points and scales for all, rows or columns.

use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::{wide, wide_work};
use super::bytes::{self, Isa, Weights, Zeros, packed_len};
use super::finish::{Finish, input, problem, round_to};
use super::lines::Rows;
use super::parts::side_by_side;
use super::real::{matrices, matrix_of, over_batch};
use super::reference::column_scales;
use crate::base::quant::{dynamic_u8, quantize, symmetric_scale};
use crate::base::{DType, Tensor, TensorView};
use crate::device::cpu::call::{Call, CpuCode, Packed, Packing};
use crate::device::cpu::quantize::{Largest, Range};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::{Dynamic, GemmProblem, Quant};
use crate::hardware::DeviceInfo;

/// Bytes of one packed matrix: panels, column sums, and column scales; each on a 64-byte boundary.
fn layout(isa: &Isa, p: &GemmProblem) -> [usize; 3] {
    let panels = packed_len(isa, p.k, p.n).next_multiple_of(64);
    let sums = panels + (p.n * 4).next_multiple_of(64);
    [panels, sums, sums + (p.n * 4).next_multiple_of(64)]
}

fn pack_all(isa: &Isa, p: &GemmProblem, b: &TensorView, out: &mut [u8]) {
    let [panels, sums, total] = layout(isa, p);
    for (i, out) in out.chunks_exact_mut(total.max(1)).take(matrices(p)).enumerate() {
        let at = i * p.k * p.n;
        let (to, rest) = out.split_at_mut(panels);
        let (column_sums, scales) = rest.split_at_mut(sums - panels);
        let (to, column_sums) = (bytemuck::cast_slice_mut::<u8, i8>(to), bytemuck::cast_slice_mut::<u8, i32>(column_sums));
        let place = |k: usize, j: usize| at + k * p.b.row + j * p.b.col;
        match b.dtype {
            DType::F32 => {
                let b = b.slice::<f32>();
                let found = column_scales(p, b, at);
                bytemuck::cast_slice_mut::<u8, f32>(scales)[..p.n].copy_from_slice(&found);
                let round = |k: usize, j: usize| quantize(b[place(k, j)], found[j], 0, -127, 127) as i8;
                bytes::pack_b(isa, (p.k, p.n), to, column_sums, round);
            }
            DType::I8 => bytes::pack_b(isa, (p.k, p.n), to, column_sums, |k, j| b.bytes[place(k, j)] as i8),
            _ => bytes::pack_b(isa, (p.k, p.n), to, column_sums, |k, j| (b.bytes[place(k, j)] ^ 0x80) as i8),
        }
    }
}

/// The kernel on one instruction set.
pub(super) struct On(pub &'static Isa);

impl CpuCode for On {
    fn pack(&self, problem_: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
        let p = problem(problem_)?;
        let of_b: Vec<usize> = p.b_inputs().collect();
        let known = |i: &usize| constants.get(*i).is_some_and(Option::is_some);
        let Some(b) = constants.get(p.b.input).and_then(|b| b.as_ref()).filter(|_| of_b.iter().all(known)) else {
            return Ok(None);
        };
        let views: Vec<_> = constants.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
        let b = side_by_side(p, &views)?.unwrap_or_else(|| b.aligned());
        let mut out = Tensor::zeros(DType::U8, [matrices(p) * layout(self.0, p)[2]])?;
        pack_all(self.0, p, &b.view(), out.view_mut().bytes);
        Ok(Some((Packed { parts: vec![out] }, of_b)))
    }

    fn scratch_bytes(&self, problem_: &Problem, _: &DeviceInfo) -> usize {
        problem(problem_).map_or(0, |p| matrices(p) * layout(self.0, p)[2])
    }

    fn run(&self, call: &mut Call) -> Result<()> {
        let isa = self.0;
        let p = problem(call.problem)?;
        let (inputs, packed, ahead) = (call.inputs, call.packed, call.ahead);
        let scratch = std::mem::take(&mut call.scratch);
        let finish = Finish::new(call)?;
        let a = input(inputs, p.a.input)?;
        if p.m == 0 || p.n == 0 {
            return Ok(());
        }
        let [panels, sums, total] = layout(isa, p);
        let weights: &[u8] = match packed.and_then(|p| p.parts.first()) {
            Some(part) => part.bytes(),
            None => {
                match side_by_side(p, inputs)? {
                    Some(b) => pack_all(isa, p, &b.view(), &mut *scratch),
                    None => pack_all(isa, p, input(inputs, p.b.input)?, &mut *scratch),
                }
                scratch
            }
        };
        let quant = p.quant.clone().unwrap_or_default();
        let tensor = match quant.dynamic {
            Some(Dynamic::TensorU8) => {
                let all = a.slice::<f32>();
                Some(all.iter().fold((0f32, 0f32), |(lo, hi), &x| (lo.min(x), hi.max(x)))).map(|(lo, hi)| dynamic_u8(lo, hi))
            }
            _ => None,
        };
        over_batch(p, |batch| {
            let part = &weights[matrix_of(p, batch) * total..][..total];
            let column_sums: &[i32] = bytemuck::cast_slice(&part[panels..sums]);
            let made = Weights::packed(isa, p.k, p.n, bytemuck::cast_slice(&part[..panels]), column_sums).before(ahead);
            let b_scales = (p.b.dtype == DType::F32).then(|| bytemuck::cast_slice(&part[sums..total]));
            product(isa, p, &quant, a, tensor, batch, &made, b_scales, &finish);
        });
        finish.end();
        Ok(())
    }
}

#[allow(clippy::too_many_arguments)]
fn product(
    isa: &Isa,
    p: &GemmProblem,
    q: &Quant,
    a: &TensorView,
    tensor: Option<(f32, u8)>,
    batch: usize,
    weights: &Weights,
    b_scales: Option<&[f32]>,
    finish: &Finish,
) {
    let at = p.offset(&p.a.batch, batch);
    let is_by_row = matches!(q.dynamic, Some(Dynamic::RowI8 | Dynamic::RowU8));
    let found = RowScales::new(if is_by_row { p.m } else { 0 });
    let of_row = |row: usize| if is_by_row { found.get(row) } else { tensor.unwrap_or((1.0, 0)) };
    let fill = |row: usize, out: &mut [u8]| {
        let place = at + row * p.a.row;
        match q.dynamic {
            Some(Dynamic::RowI8) => {
                let scale = symmetric_scale(largest(p, a.slice::<f32>(), place));
                found.set(row, (scale, 0));
                round_row(p, a, place, scale, (0, -127, 127), 0x80, out);
            }
            Some(by) => {
                if by == Dynamic::RowU8 {
                    found.set(row, range(p, a.slice::<f32>(), place));
                }
                let (scale, zero) = of_row(row);
                round_row(p, a, place, scale, (zero.into(), 0, 255), 0, out);
            }
            None => stored_row(p, a, place, out),
        }
    };
    let stored = q.dynamic.is_none() && a.dtype != DType::I8 && p.a.col == 1;
    let rows = if stored { Rows::Strided { a: &a.bytes[at..], row: p.a.row } } else { Rows::Each(&fill) };
    let signed_a = a.dtype == DType::I8 || q.dynamic == Some(Dynamic::RowI8);
    let (a_shift, b_shift) = (if signed_a { 128 } else { 0 }, if p.b.dtype == DType::U8 { -128 } else { 0 });
    let a_zero = |row: usize| a_shift + i32::from(of_row(row).1) + finish.zero(&q.a_zero, batch, row);
    let b_zero = |column: usize| b_shift + finish.zero(&q.b_zero, batch, column);
    let one_of_b = q.b_zero.as_ref().is_none_or(|z| z.step == 0).then(|| b_zero(0));
    // Rows' own zero points are not known yet: `correct` adds them.
    let zeros = Zeros { a: a_zero(0), row_sums: one_of_b != Some(0) };
    let columns = finish.column_scales(batch, b_scales);
    let done = |mut segment: bytes::Segment| {
        let (row, column) = (segment.row, segment.column);
        match one_of_b {
            Some(0) => segment.correct_row(weights, zeros, a_zero(row)),
            Some(zero) => segment.correct(weights, zeros, a_zero(row), move |_| zero),
            None => segment.correct(weights, zeros, a_zero(row), b_zero),
        }
        finish.int_row(batch, row, column, segment.sums, of_row(row).0, &columns);
    };
    bytes::product(isa, p.m, rows, weights, zeros, &done);
}

/// Scales and zero points of rows, each found by the threads that round the row, before they read it: all find the same.
struct RowScales(Vec<AtomicU64>);

impl RowScales {
    fn new(rows: usize) -> Self {
        RowScales((0..rows).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, row: usize, (scale, zero): (f32, u8)) {
        self.0[row].store(u64::from(scale.to_bits()) << 8 | u64::from(zero), Ordering::Relaxed);
    }

    fn get(&self, row: usize) -> (f32, u8) {
        let both = self.0[row].load(Ordering::Relaxed);
        (f32::from_bits((both >> 8) as u32), both as u8)
    }
}

/// A row of an 8-bit A; s8 is moved to u8.
fn stored_row(p: &GemmProblem, a: &TensorView, at: usize, out: &mut [u8]) {
    let flip = if a.dtype == DType::I8 { 0x80 } else { 0 };
    match p.a.col {
        0 => out.fill(a.bytes[at] ^ flip),
        1 => wide(|| out.iter_mut().zip(&a.bytes[at..]).for_each(|(to, &x)| *to = x ^ flip)),
        step => out.iter_mut().zip(a.bytes[at..].iter().step_by(step)).for_each(|(to, &x)| *to = x ^ flip),
    }
}

/// Scale and zero point of a row of A by its range.
fn range(p: &GemmProblem, a: &[f32], at: usize) -> (f32, u8) {
    let (lo, hi) = match p.a.col {
        1 => wide_work(Range(&a[at..at + p.k])),
        step => (0..p.k).map(|k| a[at + k * step]).fold((0f32, 0f32), |(lo, hi), x| (lo.min(x), hi.max(x))),
    };
    dynamic_u8(lo, hi)
}

/// Largest magnitude of a row of A.
fn largest(p: &GemmProblem, a: &[f32], at: usize) -> f32 {
    match p.a.col {
        1 => wide_work(Largest(&a[at..at + p.k])),
        step => (0..p.k).map(|k| a[at + k * step].abs()).fold(0.0, f32::max),
    }
}

/// Rounds a row of a float A to bytes; `flip` moves s8 to u8.
fn round_row(p: &GemmProblem, a: &TensorView, at: usize, scale: f32, (zero, lo, hi): (i32, i32, i32), flip: u8, out: &mut [u8]) {
    let a = a.slice::<f32>();
    if p.a.col == 1 {
        round_to(&a[at..at + out.len()], scale, (zero, lo, hi), out, move |q| q as u8 ^ flip);
    } else {
        out.iter_mut().enumerate().for_each(|(k, to)| *to = quantize(a[at + k * p.a.col], scale, zero, lo, hi) as u8 ^ flip);
    }
}
