//! One head's attention: keys transposed and values packed once, queries in blocks whose scores stay in cache.

use super::mask::Mask;
use super::product::{Matrix, product};
use crate::device::cpu::exponent::{exp_sum, larger};
use crate::device::cpu::isa::{Work, fold_lanes};
use crate::graph::problem::attend::Attention;
use crate::scalar::cpu::math::tanh;

/// Queries worked on together.
const BLOCK: usize = 32;

/// Working memory of one thread, reused from head to head.
#[derive(Default)]
pub(super) struct Buffers {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
    factors: Vec<f32>,
}

/// Tokens of one head: the first element and the step from token to token.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub values: &'a [f32],
    pub step: usize,
}

/// One head, with N columns of a product in registers.
pub(super) struct Head<'a, const N: usize> {
    pub problem: &'a Attention,
    pub mask: &'a Mask<'a>,
    pub b: usize,
    pub h: usize,
    pub q: Tokens<'a>,
    /// Of a transposed k, the step from element to element.
    pub k: Tokens<'a>,
    pub v: Tokens<'a>,
    /// Output: query i begins at `i * y_step`.
    pub y: &'a mut [f32],
    pub y_step: usize,
    pub buffers: &'a mut Buffers,
}

impl<const N: usize> Work for Head<'_, N> {
    type Out = ();

    #[inline(always)]
    fn run(mut self) {
        let p = self.problem;
        let (keys, columns) = (p.kv_len.next_multiple_of(N), p.v_head_size.next_multiple_of(N));
        self.pack(keys, columns);
        let b = &mut *self.buffers;
        b.scores.resize(BLOCK * keys, 0.0);
        b.out.resize(BLOCK * columns, 0.0);
        b.factors.resize(BLOCK, 0.0);
        for from in (0..p.q_len).step_by(BLOCK) {
            let m = BLOCK.min(p.q_len - from);
            let q = Matrix { values: &self.q.values[from * self.q.step..], step: self.q.step };
            product::<N>(q, Matrix { values: &b.keys, step: keys }, &mut b.scores, [m, keys, p.head_size]);
            let mut seen = 0;
            for (i, (row, factor)) in b.scores.chunks_exact_mut(keys.max(1)).zip(&mut b.factors).take(m).enumerate() {
                let limit = self.mask.limit(self.b, from + i);
                let (row, beyond) = row.split_at_mut(limit);
                beyond.fill(0.0);
                *factor = shares(p, row, self.mask.row(self.b, self.h, from + i));
                seen = seen.max(limit);
            }
            let shares = Matrix { values: &b.scores, step: keys };
            product::<N>(shares, Matrix { values: &b.values, step: columns }, &mut b.out, [m, columns, seen]);
            for i in 0..m {
                let y = &mut self.y[(from + i) * self.y_step..][..p.v_head_size];
                y.iter_mut().zip(&b.out[i * columns..]).for_each(|(y, &o)| *y = o * b.factors[i]);
            }
        }
    }
}

impl<const N: usize> Head<'_, N> {
    /// Keys as `[head size, keys]` and values as `[keys, columns]`, both padded with zeros to multiples of N.
    #[inline(always)]
    fn pack(&mut self, keys: usize, columns: usize) {
        let p = self.problem;
        let b = &mut *self.buffers;
        b.keys.clear();
        b.keys.resize(p.head_size * keys, 0.0);
        for t in 0..if p.k_transposed { 0 } else { p.kv_len } {
            let token = &self.k.values[t * self.k.step..][..p.head_size];
            token.iter().enumerate().for_each(|(d, &v)| b.keys[d * keys + t] = v);
        }
        for d in 0..if p.k_transposed { p.head_size } else { 0 } {
            b.keys[d * keys..][..p.kv_len].copy_from_slice(&self.k.values[d * self.k.step..][..p.kv_len]);
        }
        b.values.clear();
        b.values.resize(p.kv_len * columns, 0.0);
        for t in 0..p.kv_len {
            b.values[t * columns..][..p.v_head_size].copy_from_slice(&self.v.values[t * self.v.step..][..p.v_head_size]);
        }
    }
}

/// Scores of the keys a query may see, made into `exp(score - max)`; gives 1 / their sum, 0 when every key is masked.
#[inline(always)]
fn shares(p: &Attention, row: &mut [f32], mask: Option<(&[f32], usize)>) -> f32 {
    if p.softcap > 0.0 {
        row.iter_mut().for_each(|s| *s = tanh(*s * p.scale / p.softcap) * p.softcap);
    } else {
        row.iter_mut().for_each(|s| *s *= p.scale);
    }
    // A masked key stays so even where its score is infinite or NaN.
    let add = |s: f32, m: f32| if m == f32::NEG_INFINITY { m } else { s + m };
    match mask {
        Some((mask, 0)) => row.iter_mut().for_each(|s| *s = add(*s, mask[0])),
        Some((mask, _)) => row.iter_mut().zip(mask).for_each(|(s, &m)| *s = add(*s, m)),
        None => {}
    }
    let max = fold_lanes(row, f32::NEG_INFINITY, |v| v, larger);
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let sum = exp_sum(row, shift);
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}
