//! The reference of recurrent networks, in f64 (quantised products in exact integers), one thread.

use super::super::widen::{from_f64, to_f64};
use super::cell::Rules;
use crate::base::{DType, quant};
use crate::device::cpu::Call;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::recurrent::Cell;
use crate::scalar::{Formula, Steps};

fn input(call: &Call, i: usize) -> Option<Vec<f64>> {
    call.inputs.get(i)?.as_ref().map(to_f64)
}

/// A weight matrix of one direction: `rows` outputs of `k` inputs.
struct Weights<'a> {
    values: &'a [f64],
    rows: usize,
    k: usize,
    /// Scales and zero points, one or one for each row; the values then lie `[k, rows]`.
    quantized: Option<(&'a [f64], &'a [f64])>,
}

impl Weights<'_> {
    /// Rows `from..to` times `x`. Quantised weights meet `x` quantised to u8 by its own range.
    fn times(&self, x: &[f64], from: usize, to: usize) -> Vec<f64> {
        let Some((scales, zeros)) = self.quantized else {
            let dot = |r: usize| self.values[r * self.k..][..self.k].iter().zip(x).map(|(w, x)| w * x).sum();
            return (from..to).map(dot).collect();
        };
        let range = x.iter().fold((0f32, 0f32), |(lo, hi), &v| (lo.min(v as f32), hi.max(v as f32)));
        let (scale, zero) = quant::dynamic_u8(range.0, range.1);
        let q: Vec<i64> =
            x.iter().map(|&v| i64::from(quant::quantize(v as f32, scale, zero.into(), 0, 255)) - i64::from(zero)).collect();
        let dot = |r: usize| {
            let weight = |i: usize| (self.values[i * self.rows + r] - zeros[r % zeros.len()]) as i64;
            let sum: i64 = q.iter().enumerate().map(|(i, q)| q * weight(i)).sum();
            sum as f64 * f64::from(scale) * scales[r % scales.len()]
        };
        (from..to).map(dot).collect()
    }
}

/// `[a, b, n]` as `[b, a, n]`.
fn swap(values: &[f64], a: usize, b: usize, n: usize) -> Vec<f64> {
    (0..b * a).flat_map(|i| values[((i % a) * b + i / a) * n..][..n].iter().copied()).collect()
}

/// Solves any recurrent problem.
pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Recurrent(p) = call.problem else {
        return Err(Error::BadInput("a recurrent kernel was called with another family's problem".into()));
    };
    let (d, b, n) = (p.directions(), p.batch, p.hidden_size);
    let state = |i| match input(call, i) {
        Some(v) if p.batch_first => swap(&v, b, d, n),
        Some(v) => v,
        None => vec![0.0; d * b * n],
    };
    let (mut h, mut c) = (state(5), state(6));
    let mut y = vec![0.0; p.seq_len * d * b * n];
    for direction in 0..d {
        let part = direction * b * n..(direction + 1) * b * n;
        one_direction(p, call, direction, &mut h[part.clone()], &mut c[part], &mut y)?;
    }
    if p.batch_first {
        (h, c) = (swap(&h, d, b, n), swap(&c, d, b, n));
    }
    for (out, values) in call.outputs.iter_mut().zip([&y, &h, &c]) {
        if let Some(out) = out {
            from_f64(out, values);
        }
    }
    Ok(())
}

/// Element `[t, b]` of a tensor that lies by time or by batch.
fn token(p: &RecurrentProblem, t: usize, b: usize) -> usize {
    if p.batch_first { b * p.seq_len + t } else { t * p.batch + b }
}

/// First element of y of a token and direction.
fn output(p: &RecurrentProblem, t: usize, b: usize, direction: usize) -> usize {
    let d = p.directions();
    let place = if p.batch_first { (b * p.seq_len + t) * d + direction } else { (t * d + direction) * p.batch + b };
    place * p.hidden_size
}

/// Runs all rows of one direction; h and c are `[batch, hidden]`.
fn one_direction(p: &RecurrentProblem, call: &Call, direction: usize, h: &mut [f64], c: &mut [f64], y: &mut [f64]) -> Result<()> {
    let (n, gates, d) = (p.hidden_size, p.cell.gates() * p.hidden_size, p.directions());
    let all: Vec<Vec<f64>> = (0..12).map(|i| input(call, i).unwrap_or_default()).collect();
    let part = |i: usize| &all[i][all[i].len() / d * direction..][..all[i].len() / d];
    let weights = |i: usize, k: usize, scale: usize| Weights {
        values: part(i),
        rows: gates,
        k,
        quantized: p.quantized.map(|_| (part(scale), part(scale + 1))),
    };
    let (w, r) = (weights(1, p.input_size, 8), weights(2, n, 10));
    let none = vec![0.0; 2 * gates];
    let (wb, rb) = if part(3).is_empty() { none.split_at(gates) } else { part(3).split_at(gates) };
    let formulas = &p.activations[direction * p.cell.activations()..][..p.cell.activations()];
    let compile = |f: &Formula| Steps::compile(f, &[DType::F64], DType::F64);
    let activations = formulas.iter().map(compile).collect::<Result<Vec<_>>>()?;
    let activate = |i: usize, x: &mut [f64]| x.iter_mut().for_each(|x| *x = activations[i].eval(&[*x]));
    let rules = Rules { clip: p.clip, peepholes: Some(part(7)).filter(|v| !v.is_empty()), activate };
    for b in 0..p.batch {
        let len = all[4].get(b).map_or(p.seq_len, |&l| (l.max(0.0) as usize).min(p.seq_len));
        let (h, c) = (&mut h[b * n..][..n], &mut c[b * n..][..n]);
        for step in 0..len {
            let t = if p.reverse[direction] { len - 1 - step } else { step };
            let mut sums = w.times(&all[0][token(p, t, b) * p.input_size..][..p.input_size], 0, gates);
            add(&mut sums, wb);
            let recurrent = |h: &[f64], from: usize, to: usize| {
                let mut product = r.times(h, from, to);
                add(&mut product, &rb[from..to]);
                product
            };
            match p.cell {
                Cell::Lstm { input_forget } => {
                    add(&mut sums, &recurrent(h, 0, gates));
                    rules.lstm(input_forget, &mut sums, h, c);
                }
                Cell::Rnn => {
                    add(&mut sums, &recurrent(h, 0, gates));
                    rules.rnn(&sums, h);
                }
                Cell::Gru { linear_before_reset } => {
                    add(&mut sums, &recurrent(h, 0, 2 * n));
                    let mut met = h.to_vec();
                    rules.gru_gates(&mut sums, h, (!linear_before_reset).then_some(&mut met));
                    let product = recurrent(&met, 2 * n, gates);
                    if !linear_before_reset {
                        add(&mut sums[2 * n..], &product);
                    }
                    rules.gru(&mut sums, linear_before_reset.then_some(&product), h);
                }
            }
            y[output(p, t, b, direction)..][..n].copy_from_slice(h);
        }
    }
    Ok(())
}

fn add(to: &mut [f64], more: &[f64]) {
    to.iter_mut().zip(more).for_each(|(t, m)| *t += m);
}
