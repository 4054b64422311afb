//! Any matrix product or contraction, plainly: floats in f64, integers in i64.

use super::blocks::SEGMENT;
use super::finish::{Finish, input, int_at, problem, real_at};
use super::parts::side_by_side;
use super::stack;
use crate::base::quant::{dynamic_u8, quantize, symmetric_scale};
use crate::base::{DType, Tensor, TensorView, round};
use crate::device::cpu::Call;
use crate::error::Result;
use crate::graph::problem::gemm::{Contraction, Dynamic, GemmProblem, Quant};

pub(super) fn run(call: &mut Call) -> Result<()> {
    let p = problem(call.problem)?;
    let inputs = call.inputs;
    let finish = Finish::new(call)?;
    if let Some(c) = &p.contraction {
        return contract(p, c, inputs, &finish);
    }
    let joined = side_by_side(p, inputs)?;
    let joined = joined.as_ref().map(Tensor::view);
    let (a, b) = (input(inputs, p.a.input)?, joined.as_ref().map_or_else(|| input(inputs, p.b.input), Ok)?);
    for (batch, matrix) in stack::matrices_of(p, inputs)?.into_iter().enumerate() {
        let at_b = if p.pick.is_some() { matrix.map(|m| m * p.k * p.n) } else { Some(p.offset(&p.b.batch, batch)) };
        match (&p.quant, at_b) {
            (_, None) => stack::zero(p, batch, &finish),
            (Some(q), _) => quantised(p, q, (a, b), batch, &finish),
            (None, Some(at_b)) => (0..p.m).for_each(|row| plain_row(p, (a, b), (batch, at_b), row, &finish)),
        }
    }
    finish.end();
    Ok(())
}

/// Value of B as the problem wants it rounded.
fn lowered(x: f64, to: DType) -> f64 {
    match to {
        DType::F16 => round::to_f16(x).to_f64(),
        DType::BF16 => round::to_bf16(x).to_f64(),
        _ => x,
    }
}

fn plain_row(p: &GemmProblem, (a, b): (&TensorView, &TensorView), (batch, at_b): (usize, usize), row: usize, finish: &Finish) {
    let at_a = p.offset(&p.a.batch, batch) + row * p.a.row;
    let places = |col: usize| (0..p.k).map(move |k| (at_a + k * p.a.col, at_b + k * p.b.row + col * p.b.col));
    if p.out.is_float() {
        let scales = p.b_scale.as_ref().and_then(|s| Some((s.step, finish.view(s.input)?)));
        let b = |j: usize, col: usize| match scales {
            Some((step, scales)) => f64::from((real_at(b, j) * real_at(scales, col * step)) as f32),
            None => lowered(real_at(b, j), p.b_as),
        };
        let sum = |col| places(col).map(|(i, j)| real_at(a, i) * b(j, col)).sum::<f64>();
        return real_row(p, batch, row, finish, sum);
    }
    let at_c = p.c.as_ref().map(|c| p.offset(&c.batch, batch) + row * c.row);
    let c = p.c.as_ref().and_then(|c| finish.view(c.input));
    let sums: Vec<i64> = (0..p.n)
        .map(|col| {
            let sum = places(col).fold(0i64, |s, (i, j)| s.wrapping_add(int_at(a, i).wrapping_mul(int_at(b, j))));
            let add = c.zip(at_c).map_or(0, |(view, at)| int_at(view, at + col * p.c.as_ref().map_or(0, |c| c.col)));
            if p.alpha == 1.0 && p.beta == 1.0 {
                return sum.wrapping_add(add);
            }
            (f64::from(p.alpha) * sum as f64 + f64::from(p.beta) * add as f64) as i64
        })
        .collect();
    store_ints(p, (batch * p.m + row) * p.n, &sums, finish);
}

/// Float sums of a row: f64 results are kept in f64 when nothing follows.
fn real_row(p: &GemmProblem, batch: usize, row: usize, finish: &Finish, sum: impl Fn(usize) -> f64) {
    if p.out == DType::F64 && p.epilogue.is_none() {
        let c = p.c.as_ref().and_then(|c| Some((c, finish.view(c.input)?)));
        let out = bytemuck::cast_slice_mut::<u8, f64>(finish.raw((batch * p.m + row) * p.n, p.n));
        for (col, to) in out.iter_mut().enumerate() {
            let add = c.map_or(0.0, |(c, v)| real_at(v, p.offset(&c.batch, batch) + row * c.row + col * c.col));
            *to = f64::from(p.alpha) * sum(col) + f64::from(p.beta) * add;
        }
        return;
    }
    for start in (0..p.n).step_by(SEGMENT) {
        let mut x: Vec<f32> = (start..(start + SEGMENT).min(p.n)).map(|col| sum(col) as f32).collect();
        finish.row(batch, row, start, &mut x);
    }
}

/// Stores integers, each wrapped to the output's type.
fn store_ints(p: &GemmProblem, flat: usize, sums: &[i64], finish: &Finish) {
    if p.epilogue.is_some() {
        return finish.floats(flat, &mut sums.iter().map(|&s| s as f32).collect::<Vec<f32>>());
    }
    let size = p.out.size_bytes();
    for (to, s) in finish.raw(flat, sums.len()).chunks_exact_mut(size).zip(sums) {
        to.copy_from_slice(&s.to_le_bytes()[..size]);
    }
}

fn contract(p: &GemmProblem, c: &Contraction, inputs: &[Option<TensorView>], finish: &Finish) -> Result<()> {
    let views: Vec<&TensorView> = (0..c.steps.len()).map(|i| input(inputs, i)).collect::<Result<_>>()?;
    let (kept, summed) = c.sizes.split_at(c.kept);
    let (outer, inner) = (kept.iter().product::<usize>(), summed.iter().product::<usize>());
    let place = |steps: &[usize], sizes: &[usize], mut i: usize| {
        let mut at = 0;
        for (&size, &step) in sizes.iter().zip(steps).rev() {
            at += i % size * step;
            i /= size;
        }
        at
    };
    for o in 0..outer {
        let starts: Vec<usize> = c.steps.iter().map(|s| place(&s[..c.kept], kept, o)).collect();
        let terms =
            |i: usize| views.iter().zip(&c.steps).zip(&starts).map(move |((v, s), &at)| (v, at + place(&s[c.kept..], summed, i)));
        if p.out.is_float() {
            let sum: f64 = (0..inner).map(|i| terms(i).map(|(v, at)| real_at(v, at)).product::<f64>()).sum();
            if p.out == DType::F64 && p.epilogue.is_none() {
                finish.raw(o, 1).copy_from_slice(&sum.to_le_bytes());
            } else {
                finish.floats(o, &mut [sum as f32]);
            }
        } else {
            let sum =
                (0..inner).fold(0i64, |s, i| s.wrapping_add(terms(i).fold(1i64, |t, (v, at)| t.wrapping_mul(int_at(v, at)))));
            store_ints(p, o, &[sum], finish);
        }
    }
    Ok(())
}

/// A as integers, and for each row the scale and zero point found while running.
fn dynamic_a(p: &GemmProblem, q: &Quant, a: &TensorView, batch: usize) -> (Vec<i64>, Vec<(f32, u8)>) {
    let at = |row: usize, k: usize| p.offset(&p.a.batch, batch) + row * p.a.row + k * p.a.col;
    let places = (0..p.m).flat_map(|r| (0..p.k).map(move |k| (r, k)));
    match q.dynamic {
        None => (places.map(|(r, k)| int_at(a, at(r, k))).collect(), vec![(1.0, 0); p.m]),
        Some(Dynamic::TensorU8) => {
            let all = a.slice::<f32>();
            let (lo, hi) = all.iter().fold((0f32, 0f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
            let (scale, zero) = dynamic_u8(lo, hi);
            let values = places.map(|(r, k)| quantize(all[at(r, k)], scale, zero.into(), 0, 255).into());
            (values.collect(), vec![(scale, zero); p.m])
        }
        Some(Dynamic::RowI8) => {
            let all = a.slice::<f32>();
            let largest = |r: usize| (0..p.k).fold(0f32, |m, k| m.max(all[at(r, k)].abs()));
            let rows: Vec<(f32, u8)> = (0..p.m).map(|r| (symmetric_scale(largest(r)), 0)).collect();
            (places.map(|(r, k)| quantize(all[at(r, k)], rows[r].0, 0, -127, 127).into()).collect(), rows)
        }
        Some(Dynamic::RowU8) => {
            let all = a.slice::<f32>();
            let range = |r: usize| (0..p.k).map(|k| all[at(r, k)]).fold((0f32, 0f32), |(lo, hi), x| (lo.min(x), hi.max(x)));
            let rows: Vec<(f32, u8)> = (0..p.m).map(range).map(|(lo, hi)| dynamic_u8(lo, hi)).collect();
            (places.map(|(r, k)| quantize(all[at(r, k)], rows[r].0, rows[r].1.into(), 0, 255).into()).collect(), rows)
        }
    }
}

fn quantised(p: &GemmProblem, q: &Quant, (a, b): (&TensorView, &TensorView), batch: usize, finish: &Finish) {
    let (values, rows) = dynamic_a(p, q, a, batch);
    let at_b = p.offset(&p.b.batch, batch);
    let b_scales = (p.b.dtype == DType::F32).then(|| column_scales(p, b.slice::<f32>(), at_b));
    let columns = finish.column_scales(batch, b_scales.as_deref());
    for row in 0..p.m {
        let (a_scale, a_zero) = rows[row];
        let a_zero = i64::from(a_zero) + i64::from(finish.zero(&q.a_zero, batch, row));
        for start in (0..p.n).step_by(SEGMENT) {
            let sum = |col: usize| -> i32 {
                let b_zero = i64::from(finish.zero(&q.b_zero, batch, col));
                let b_at = |k: usize| match &b_scales {
                    Some(s) => quantize(b.slice::<f32>()[at_b + k * p.b.row + col * p.b.col], s[col], 0, -127, 127).into(),
                    None => int_at(b, at_b + k * p.b.row + col * p.b.col),
                };
                (0..p.k).map(|k| (values[row * p.k + k] - a_zero) * (b_at(k) - b_zero)).sum::<i64>() as i32
            };
            let mut sums: Vec<i32> = (start..(start + SEGMENT).min(p.n)).map(sum).collect();
            finish.int_row(batch, row, start, &mut sums, a_scale, &columns);
        }
    }
}

/// Symmetric scale of each column of a float B.
pub(super) fn column_scales(p: &GemmProblem, b: &[f32], at: usize) -> Vec<f32> {
    let largest = |col: usize| (0..p.k).fold(0f32, |m, k| m.max(b[at + k * p.b.row + col * p.b.col].abs()));
    (0..p.n).map(|col| symmetric_scale(largest(col))).collect()
}
