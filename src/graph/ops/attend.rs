//! Attention and rotary position embedding.

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::attend::{Attention, HeadLayout, Rotary, Scores};
use crate::graph::problem::{AttendProblem, Problem};
use crate::graph::{Lower, OpDef, Refusal, Site, Type};

pub(super) static OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Attention", infer: infer_attention, lower: Lower::Family(lower_attention) },
    OpDef { domain: "halfbyte", name: "Attention", infer: infer_fused, lower: Lower::Family(lower_fused) },
    OpDef { domain: "", name: "RotaryEmbedding", infer: infer_rotary, lower: Lower::Family(lower_rotary) },
];

/// Batch, heads, tokens and head size of an operand of 3 or 4 axes.
fn heads(site: &Site, i: usize, count: &str) -> Result<[usize; 4]> {
    match site.ty(i)?.shape[..] {
        [b, h, t, d] => Ok([b, h, t, d]),
        [b, t, hidden] => match site.int(count, 0).max(0) as usize {
            h if h > 0 && hidden % h == 0 => Ok([b, h, t, hidden / h]),
            h => Err(site.error(format!("{hidden} elements do not make {h} heads ({count})"))),
        },
        _ => Err(site.error(format!("input {i} has {} axes, not 3 or 4", site.ty(i)?.shape.rank()))),
    }
}

fn layout(site: &Site) -> Result<HeadLayout> {
    Ok(if site.ty(0)?.shape.rank() == 4 { HeadLayout::HeadsFirst } else { HeadLayout::TokensFirst })
}

/// What the fourth output shows. Operator sets 23 and 24 were published with 1 and 2 naming the steps the other way round;
/// the soft cap comes before the mask, as their errata say.
fn scores(site: &Site) -> Result<Scores> {
    let published = site.opset() < 25;
    match site.int("qk_matmul_output_mode", 0) {
        0 => Ok(Scores::Raw),
        1 if published => Ok(Scores::Masked),
        1 => Ok(Scores::Capped),
        2 => Ok(Scores::Masked),
        3 => Ok(Scores::Softmax),
        mode => Err(site.error(format!("qk_matmul_output_mode {mode} is not defined"))),
    }
}

/// Checks the mask against `[batch, heads, queries, keys]`.
fn mask(site: &Site, full: [usize; 4]) -> Result<Option<Type>> {
    let Some(operand) = site.input(3) else { return Ok(None) };
    let ty = &operand.ty;
    if ty.dtype.is_int() || ty.shape.broadcast_strides(&Shape::from(full)).is_none() {
        return Err(site.error(format!("mask {} {} does not fit {}", ty.dtype, ty.shape, Shape::from(full))));
    }
    Ok(Some(ty.clone()))
}

/// Tokens of the past, from inputs 4 and 5.
fn past(site: &Site, [b, h, _, d]: [usize; 4], v_size: usize) -> Result<usize> {
    let (Some(key), Some(value)) = (site.input(4), site.input(5)) else {
        if site.input(4).is_some() || site.input(5).is_some() {
            return Err(site.error("past key and value go together"));
        }
        return Ok(0);
    };
    let len = key.ty.shape.get(2).copied().unwrap_or(0);
    if key.ty.shape[..] != [b, h, len, d] || value.ty.shape[..] != [b, h, len, v_size] {
        return Err(site.error(format!("past key {} or value {} does not fit", key.ty.shape, value.ty.shape)));
    }
    Ok(len)
}

fn attention(site: &Site) -> Result<Attention> {
    let dtype = site.ty(0)?.dtype;
    if !dtype.is_float() || [1, 2, 4, 5].iter().any(|&i| site.input(i).is_some_and(|o| o.ty.dtype != dtype)) {
        return Err(site.unsupported("queries, keys and values of different or integer types"));
    }
    if site.int("left_window_size", -1) >= 0 || site.int("right_window_size", -1) >= 0 {
        return Err(site.unsupported("a sliding window"));
    }
    let [batch, q_heads, q_len, head_size] = heads(site, 0, "q_num_heads")?;
    let k @ [kb, kv_heads, kv_len, kd] = heads(site, 1, "kv_num_heads")?;
    let [vb, vh, vt, v_head_size] = heads(site, 2, "kv_num_heads")?;
    if [kb, vb] != [batch; 2] || kd != head_size || vh != kv_heads || vt != kv_len || kv_heads == 0 || q_heads % kv_heads != 0 {
        return Err(site.error(format!("{q_heads} query heads of {head_size} do not fit keys {k:?}")));
    }
    let past_len = past(site, k, v_head_size)?;
    let keys = past_len + kv_len;
    let mask_keys = site.input(3).and_then(|m| m.ty.shape.last().copied()).unwrap_or(keys).min(keys);
    let valid = site.input(6).is_some();
    if valid && (site.ty(6)?.dtype != DType::I64 || site.ty(6)?.shape.numel() != batch) {
        return Err(site.error("nonpad_kv_seqlen must be one i64 for each batch entry"));
    }
    Ok(Attention {
        dtype,
        layout: layout(site)?,
        batch,
        q_heads,
        kv_heads,
        q_len,
        kv_len,
        past_len,
        head_size,
        v_head_size,
        k_transposed: false,
        scale: site.float("scale", 1.0 / (head_size as f32).sqrt()),
        softcap: site.float("softcap", 0.0),
        causal: site.int("is_causal", 0) != 0,
        mask: mask(site, [batch, q_heads, q_len, mask_keys])?,
        mask_keys,
        valid,
        scores: scores(site)?,
    })
}

fn infer_attention(site: &Site) -> Result<Vec<Type>, Refusal> {
    let a = attention(site)?;
    let y = match a.layout {
        HeadLayout::HeadsFirst => Shape::from([a.batch, a.q_heads, a.q_len, a.v_head_size]),
        HeadLayout::TokensFirst => Shape::from([a.batch, a.q_len, a.q_heads * a.v_head_size]),
    };
    let present = |size| Shape::from([a.batch, a.kv_heads, a.keys(), size]);
    let scores = Shape::from([a.batch, a.q_heads, a.q_len, a.keys()]);
    let shapes = [y, present(a.head_size), present(a.v_head_size), scores];
    Ok(shapes.into_iter().map(|s| Type::new(a.dtype, s)).take(site.output_count()).collect())
}

fn lower_attention(site: &Site, _: &[Type]) -> Result<Problem> {
    Ok(Problem::Attend(AttendProblem::Attention(attention(site)?)))
}

/// Queries, keys and values `[batch, heads, tokens, head size]`; with `k_transposed` keys `[batch, heads, head size, tokens]`, with
/// `tokens_first` all of them, and the output, `[batch, tokens, heads, head size]`.
fn fused(site: &Site) -> Result<Attention> {
    let dtype = site.ty(0)?.dtype;
    let tokens_first = site.int("tokens_first", 0) != 0;
    let shape = |i| match site.ty(i)?.shape[..] {
        [b, t, h, d] if site.ty(i)?.dtype == dtype && tokens_first => Ok([b, h, t, d]),
        [b, h, t, d] if site.ty(i)?.dtype == dtype => Ok([b, h, t, d]),
        _ => Err(site.error(format!("input {i} must have 4 axes and the queries' type"))),
    };
    let k_transposed = site.int("k_transposed", 0) != 0;
    let [batch, q_heads, q_len, head_size] = shape(0)?;
    let [_, _, kv_len, v_head_size] = shape(2)?;
    let k = if k_transposed { [batch, q_heads, head_size, kv_len] } else { [batch, q_heads, kv_len, head_size] };
    if shape(1)? != k || shape(2)?[..2] != [batch, q_heads] || !dtype.is_float() {
        return Err(site.error(format!("keys must be {k:?} and values alike, of a float type")));
    }
    Ok(Attention {
        dtype,
        layout: if tokens_first { HeadLayout::TokensFirst } else { HeadLayout::HeadsFirst },
        batch,
        q_heads,
        kv_heads: q_heads,
        q_len,
        kv_len,
        past_len: 0,
        head_size,
        v_head_size,
        k_transposed,
        scale: site.float("scale", 1.0),
        softcap: 0.0,
        causal: false,
        mask: mask(site, [batch, q_heads, q_len, kv_len])?,
        mask_keys: kv_len,
        valid: false,
        scores: Scores::Raw,
    })
}

fn infer_fused(site: &Site) -> Result<Vec<Type>, Refusal> {
    let a = fused(site)?;
    let shape = match a.layout {
        HeadLayout::HeadsFirst => [a.batch, a.q_heads, a.q_len, a.v_head_size],
        HeadLayout::TokensFirst => [a.batch, a.q_len, a.q_heads, a.v_head_size],
    };
    Ok(vec![Type::new(a.dtype, shape); site.output_count()])
}

fn lower_fused(site: &Site, _: &[Type]) -> Result<Problem> {
    Ok(Problem::Attend(AttendProblem::Attention(fused(site)?)))
}

fn rotary(site: &Site) -> Result<Rotary> {
    let dtype = site.ty(0)?.dtype;
    let [batch, heads, tokens, head_size] = heads(site, 0, "num_heads")?;
    let rotated = match site.int("rotary_embedding_dim", 0).max(0) as usize {
        0 => head_size,
        n => n,
    };
    let half = rotated / 2;
    let ids = site.input(3).is_some();
    let table = &site.ty(1)?.shape;
    let fits = match table[..] {
        [_, n] if ids => n == half,
        [b, t, n] if !ids => [b, t, n] == [batch, tokens, half],
        _ => false,
    };
    if !dtype.is_float() || rotated % 2 != 0 || rotated > head_size || !fits || site.ty(1)? != site.ty(2)? {
        return Err(site.error(format!("cos and sin {table} do not fit {rotated} rotated elements of {head_size}")));
    }
    if ids && (site.ty(3)?.dtype != DType::I64 || site.ty(3)?.shape[..] != [batch, tokens]) {
        return Err(site.error("position_ids must be one i64 for each token"));
    }
    let positions = if ids { table[0] } else { batch * tokens };
    let interleaved = site.int("interleaved", 0) != 0;
    Ok(Rotary { dtype, layout: layout(site)?, batch, tokens, heads, head_size, rotated, interleaved, positions, ids })
}

fn infer_rotary(site: &Site) -> Result<Vec<Type>, Refusal> {
    rotary(site)?;
    super::reduce::infer_same(site)
}

fn lower_rotary(site: &Site, _: &[Type]) -> Result<Problem> {
    Ok(Problem::Attend(AttendProblem::Rotary(rotary(site)?)))
}
