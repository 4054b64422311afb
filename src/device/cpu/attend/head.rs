//! One head's attention: keys transposed and values packed once, queries in blocks whose scores stay in cache. A few queries read
//! keys and values where they lie.

use std::marker::PhantomData;

use super::mask::Mask;
use super::product::{Matrix, product};
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::exponent::{exp_sum, larger};
use crate::device::cpu::gemm::interleave::interleave;
use crate::device::cpu::gemm::simd::Real;
use crate::device::cpu::isa::{Work, fold_lanes};
use crate::graph::problem::attend::{Attention, Scores};
use crate::scalar::cpu::math::tanh;

/// Queries worked on together.
const BLOCK: usize = 32;
/// Queries for which packing keys and values does not pay.
const FEW: usize = 3;

/// Working memory of one thread, reused from head to head.
#[derive(Default)]
pub(super) struct Buffers {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
    factors: Vec<f32>,
}

/// Tokens of one head: from the first element on, the step from token to token, and how many.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub values: &'a [f32],
    pub step: usize,
    pub len: usize,
}

impl<'a> Tokens<'a> {
    /// Each token's elements.
    #[inline(always)]
    fn each(self, size: usize) -> impl Iterator<Item = &'a [f32]> {
        (0..self.len).map(move |t| &self.values[t * self.step..][..size])
    }
}

/// A head, computed with ROWS rows by two vectors of V in registers.
pub(super) struct In<'a, V, const ROWS: usize>(pub Head<'a>, pub PhantomData<V>);

/// One head.
pub(super) struct Head<'a> {
    pub problem: &'a Attention,
    pub mask: &'a Mask<'a>,
    pub b: usize,
    pub h: usize,
    pub q: Tokens<'a>,
    /// Past keys, then new ones; of a transposed k, the step from element to element.
    pub k: [Tokens<'a>; 2],
    pub v: [Tokens<'a>; 2],
    /// Output: query i begins at `y_at + i * y_step`; other heads may lie between.
    pub y: &'a Disjoint<'a, f32>,
    pub y_at: usize,
    pub y_step: usize,
    /// Output: what is to be shown of the scores, `[queries, keys]`, if anything.
    pub shown: Option<&'a mut [f32]>,
    pub buffers: &'a mut Buffers,
}

impl<V: Real, const ROWS: usize> Work for In<'_, V, ROWS> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        self.0.run::<V, ROWS>();
    }
}

impl Head<'_> {
    #[inline(always)]
    fn run<V: Real, const ROWS: usize>(mut self) {
        let p = self.problem;
        if p.q_len <= FEW && !p.k_transposed {
            return self.in_place();
        }
        let (keys, columns) = (p.keys().next_multiple_of(2 * V::LANES), p.v_head_size.next_multiple_of(2 * V::LANES));
        self.pack(keys, columns);
        let b = &mut *self.buffers;
        b.scores.resize(BLOCK * keys, 0.0);
        b.out.resize(BLOCK * columns, 0.0);
        b.factors.resize(BLOCK, 0.0);
        for from in (0..p.q_len).step_by(BLOCK) {
            let m = BLOCK.min(p.q_len - from);
            let q = Matrix { values: &self.q.values[from * self.q.step..], step: self.q.step };
            // SAFETY: who makes a head of these vectors has seen that the processor has them.
            unsafe { product::<V, ROWS>(q, Matrix { values: &b.keys, step: keys }, &mut b.scores, [m, keys, p.head_size]) };
            let mut seen = 0;
            for (i, (row, factor)) in b.scores.chunks_exact_mut(keys.max(1)).zip(&mut b.factors).take(m).enumerate() {
                let limit = self.mask.limit(self.b, from + i);
                let shown = self.shown.as_deref_mut().map(|s| &mut s[(from + i) * p.keys()..][..p.keys()]);
                *factor = shares(p, row, limit, self.mask.row(self.b, self.h, from + i), shown);
                seen = seen.max(limit);
            }
            let shares = Matrix { values: &b.scores, step: keys };
            // SAFETY: as above.
            unsafe { product::<V, ROWS>(shares, Matrix { values: &b.values, step: columns }, &mut b.out, [m, columns, seen]) };
            for i in 0..m {
                // SAFETY: each query of a head is written here only.
                let y = unsafe { self.y.part(self.y_at + (from + i) * self.y_step, p.v_head_size) };
                y.iter_mut().zip(&b.out[i * columns..]).for_each(|(y, &o)| *y = o * b.factors[i]);
            }
        }
    }

    /// Keys as `[head size, keys]` and values as `[keys, columns]`, both padded with zeros.
    #[inline(always)]
    fn pack(&mut self, keys: usize, columns: usize) {
        let p = self.problem;
        let b = &mut *self.buffers;
        b.keys.clear();
        b.keys.resize(p.head_size * keys, 0.0);
        if p.k_transposed {
            let elements = Tokens { len: p.head_size, ..self.k[1] }.each(p.kv_len);
            b.keys.chunks_exact_mut(keys.max(1)).zip(elements).for_each(|(to, from)| to[..p.kv_len].copy_from_slice(from));
        } else {
            for (k, first) in self.k.iter().zip([0, p.past_len]).filter(|(k, _)| k.len > 0) {
                let to = bytemuck::cast_slice_mut(&mut b.keys[first..]);
                interleave(bytemuck::cast_slice(k.values), 4 * k.step, k.len, p.head_size, keys, to);
            }
        }
        b.values.clear();
        b.values.resize(p.keys() * columns, 0.0);
        let tokens = self.v.iter().flat_map(|v| v.each(p.v_head_size));
        b.values.chunks_exact_mut(columns.max(1)).zip(tokens).for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
    }

    /// Query by query, without packing.
    #[inline(always)]
    fn in_place(mut self) {
        let p = self.problem;
        let scores = &mut self.buffers.scores;
        scores.resize(p.keys(), 0.0);
        for i in 0..p.q_len {
            let q = &self.q.values[i * self.q.step..][..p.head_size];
            let tokens = self.k.iter().flat_map(|k| k.each(p.head_size));
            // Loops, not closures: only what is inlined is compiled for the instruction set.
            for (s, k) in scores.iter_mut().zip(tokens) {
                *s = dot(q, k);
            }
            let limit = self.mask.limit(self.b, i);
            let shown = self.shown.as_deref_mut().map(|s| &mut s[i * p.keys()..][..p.keys()]);
            let factor = shares(p, scores, limit, self.mask.row(self.b, self.h, i), shown);
            // SAFETY: as above.
            let y = unsafe { self.y.part(self.y_at + i * self.y_step, p.v_head_size) };
            y.fill(0.0);
            let tokens = self.v.iter().flat_map(|v| v.each(p.v_head_size));
            for (v, &share) in tokens.zip(&scores[..limit]) {
                for (y, &v) in y.iter_mut().zip(v) {
                    *y = share.mul_add(v, *y);
                }
            }
            y.iter_mut().for_each(|y| *y *= factor);
        }
    }
}

/// The sum of products.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = a.mul_add(b, *lane);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = a.mul_add(b, *lane);
    }
    fold_lanes(&lanes, 0.0, |v| v, |a, b| a + b)
}

/// Products made into scores.
#[inline(always)]
fn score(p: &Attention, row: &mut [f32]) {
    if p.softcap > 0.0 {
        row.iter_mut().for_each(|s| *s = tanh(*s * p.scale / p.softcap) * p.softcap);
    } else {
        row.iter_mut().for_each(|s| *s *= p.scale);
    }
}

/// Products of all keys made into `exp(score - max)` of the first `limit`, which a query may see, and 0; gives 1 / their sum, 0 when
/// every key is masked.
#[inline(always)]
fn shares(p: &Attention, row: &mut [f32], limit: usize, mask: Option<(&[f32], usize)>, mut shown: Option<&mut [f32]>) -> f32 {
    match (p.scores, &mut shown) {
        (Scores::Raw, Some(shown)) => shown.iter_mut().zip(&*row).for_each(|(s, &product)| *s = product * p.scale),
        (Scores::Capped, Some(shown)) => {
            shown.copy_from_slice(&row[..shown.len()]);
            score(p, shown);
        }
        _ => {}
    }
    let (row, beyond) = row.split_at_mut(limit);
    beyond.fill(0.0);
    score(p, row);
    // A masked key stays so even where its score is infinite or NaN.
    let add = |s: f32, m: f32| if m == f32::NEG_INFINITY { m } else { s + m };
    match mask {
        Some((mask, 0)) => row.iter_mut().for_each(|s| *s = add(*s, mask[0])),
        Some((mask, _)) => row.iter_mut().zip(mask).for_each(|(s, &m)| *s = add(*s, m)),
        None => {}
    }
    let max = fold_lanes(row, f32::NEG_INFINITY, |v| v, larger);
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    if let (Scores::Masked, Some(shown)) = (p.scores, &mut shown) {
        shown[..limit].copy_from_slice(row);
        shown[limit..].fill(f32::NEG_INFINITY);
    }
    let sum = exp_sum(row, shift);
    let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    if let (Scores::Softmax, Some(shown)) = (p.scores, &mut shown) {
        shown[..limit].iter_mut().zip(&*row).for_each(|(s, &share)| *s = share * factor);
        shown[limit..].fill(0.0);
    }
    factor
}
