//! The reference of attention and rotary embedding, in f64, one thread.

use super::super::widen::{from_f64, to_f64};
use super::mask::Mask;
use crate::base::TensorView;
use crate::device::cpu::Call;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::AttendProblem;
use crate::graph::problem::attend::{Attention, HeadLayout, Rotary, Scores};

/// Solves any attend problem.
pub(super) fn run(call: &mut Call) -> Result<()> {
    match call.problem {
        Problem::Attend(AttendProblem::Attention(p)) => attention(p, call),
        Problem::Attend(AttendProblem::Rotary(p)) => rotary(p, call),
        _ => Err(Error::BadInput("an attend kernel was called with another family's problem".into())),
    }
}

fn input(call: &Call, i: usize) -> Vec<f64> {
    call.inputs.get(i).and_then(|v| v.as_ref()).map(to_f64).unwrap_or_default()
}

fn store(call: &mut Call, i: usize, values: &[f64]) {
    if let Some(Some(out)) = call.outputs.get_mut(i) {
        from_f64(out, values);
    }
}

/// First element of token `t` of head `h`, of `[heads, tokens, size]` dims.
pub(super) fn place(layout: HeadLayout, [heads, tokens, size]: [usize; 3], b: usize, h: usize, t: usize) -> usize {
    match layout {
        HeadLayout::HeadsFirst => ((b * heads + h) * tokens + t) * size,
        HeadLayout::TokensFirst => ((b * tokens + t) * heads + h) * size,
    }
}

/// Past and new keys (or values) as `[batch, heads, keys, size]`.
fn present(p: &Attention, past: &[f64], new: &[f64], size: usize, transposed: bool) -> Vec<f64> {
    let mut all = Vec::new();
    for (b, h) in (0..p.batch).flat_map(|b| (0..p.kv_heads).map(move |h| (b, h))) {
        let head = b * p.kv_heads + h;
        all.extend_from_slice(&past[head * p.past_len * size..][..p.past_len * size]);
        for t in 0..p.kv_len {
            if transposed {
                all.extend((0..size).map(|d| new[(head * size + d) * p.kv_len + t]));
            } else {
                all.extend_from_slice(&new[place(p.layout, [p.kv_heads, p.kv_len, size], b, h, t)..][..size]);
            }
        }
    }
    all
}

fn attention(p: &Attention, call: &mut Call) -> Result<()> {
    let q = input(call, 0);
    let k = present(p, &input(call, 4), &input(call, 1), p.head_size, p.k_transposed);
    let v = present(p, &input(call, 5), &input(call, 2), p.v_head_size, false);
    let inputs: &[Option<TensorView>] = call.inputs;
    let mask = Mask::new(p, inputs)?;
    let mut shown = vec![0.0; p.batch * p.q_heads * p.q_len * p.keys()];
    let mut y = vec![0.0; p.batch * p.q_heads * p.q_len * p.v_head_size];
    for n in 0..p.batch * p.q_heads * p.q_len {
        let (b, h, i) = (n / (p.q_heads * p.q_len), n / p.q_len % p.q_heads, n % p.q_len);
        let head = b * p.kv_heads + h / (p.q_heads / p.kv_heads);
        let q = &q[place(p.layout, [p.q_heads, p.q_len, p.head_size], b, h, i)..][..p.head_size];
        let keys = &k[head * p.keys() * p.head_size..];
        let scores = &mut shown[n * p.keys()..][..p.keys()];
        let shares = query(p, q, keys, |j| mask.bias(b, h, i, j).into(), scores);
        let y = &mut y[place(p.layout, [p.q_heads, p.q_len, p.v_head_size], b, h, i)..][..p.v_head_size];
        let values = &v[head * p.keys() * p.v_head_size..];
        for (j, share) in shares.iter().enumerate().filter(|(_, s)| **s != 0.0) {
            y.iter_mut().enumerate().for_each(|(d, y)| *y += share * values[j * p.v_head_size + d]);
        }
    }
    store(call, 0, &y);
    store(call, 1, &k);
    store(call, 2, &v);
    store(call, 3, &shown);
    Ok(())
}

/// The shares of one query's keys; what is to be shown of its scores goes to `shown`.
fn query(p: &Attention, q: &[f64], keys: &[f64], bias: impl Fn(usize) -> f64, shown: &mut [f64]) -> Vec<f64> {
    let mut scores = vec![0.0; shown.len()];
    for (j, score) in scores.iter_mut().enumerate() {
        let raw = q.iter().zip(&keys[j * p.head_size..]).map(|(a, b)| a * b).sum::<f64>() * f64::from(p.scale);
        let cap = f64::from(p.softcap);
        let capped = if cap > 0.0 { (raw / cap).tanh() * cap } else { raw };
        let bias = bias(j);
        *score = if bias == f64::NEG_INFINITY { bias } else { capped + bias };
        shown[j] = match p.scores {
            Scores::Raw => raw,
            Scores::Capped => capped,
            Scores::Masked | Scores::Softmax => *score,
        };
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY && !scores.iter().any(|s| s.is_nan()) {
        scores.fill(0.0);
    } else {
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        scores.iter_mut().for_each(|s| *s = (*s - max).exp() / sum);
    }
    if p.scores == Scores::Softmax {
        shown.copy_from_slice(&scores);
    }
    scores
}

/// The first element of the angles of token `n`.
pub(super) fn angle(p: &Rotary, ids: Option<&[i64]>, n: usize) -> Result<usize> {
    let position = usize::try_from(ids.map_or(n as i64, |ids| ids[n])).ok().filter(|&at| at < p.positions);
    let outside = || Error::BadInput(format!("position of token {n} is outside {} angles", p.positions));
    Ok(position.ok_or_else(outside)? * (p.rotated / 2))
}

fn rotary(p: &Rotary, call: &mut Call) -> Result<()> {
    let (mut x, cos, sin) = (input(call, 0), input(call, 1), input(call, 2));
    let ids = call.inputs.get(3).and_then(|v| v.as_ref()).filter(|_| p.ids).map(|v| v.slice::<i64>());
    let half = p.rotated / 2;
    for n in 0..p.batch * p.tokens {
        let at = angle(p, ids, n)?;
        for h in 0..p.heads {
            let start = place(p.layout, [p.heads, p.tokens, p.head_size], n / p.tokens, h, n % p.tokens);
            for i in 0..half {
                let (a, b) = if p.interleaved { (start + 2 * i, start + 2 * i + 1) } else { (start + i, start + i + half) };
                let (c, s) = (cos[at + i], sin[at + i]);
                (x[a], x[b]) = (c * x[a] - s * x[b], s * x[a] + c * x[b]);
            }
        }
    }
    store(call, 0, &x);
    Ok(())
}
