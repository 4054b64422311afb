//! Scaled dot-product attention and rotary position embedding.

use crate::base::DType;
use crate::graph::Type;

/// Which scores the fourth output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Scaled products.
    Raw,
    /// After the soft cap.
    Capped,
    /// After the soft cap and the mask.
    Masked,
    /// After the softmax.
    Softmax,
}

/// How the head axis lies in q, k, v and the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadLayout {
    /// `[batch, heads, tokens, head size]`.
    HeadsFirst,
    /// `[batch, tokens, heads * head size]`.
    TokensFirst,
}

/// `softmax(softcap(scale * q k^T) + mask) v` for each head. A query whose every key is masked gives zeros.
///
/// Inputs: q, k, v, mask, past key, past value, valid keys of each batch entry (i64).
/// Outputs: y, present key, present value, scores `[batch, q_heads, q_len, past_len + kv_len]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Attention {
    pub dtype: DType,
    pub layout: HeadLayout,
    pub batch: usize,
    pub q_heads: usize,
    /// Divides `q_heads`; each is shared by neighbouring query heads.
    pub kv_heads: usize,
    pub q_len: usize,
    /// Keys given, past ones not counted.
    pub kv_len: usize,
    pub past_len: usize,
    pub head_size: usize,
    pub v_head_size: usize,
    /// k lies as `[batch, heads, head size, tokens]`.
    pub k_transposed: bool,
    pub scale: f32,
    /// 0 for none.
    pub softcap: f32,
    /// Query i sees keys up to `i + offset`; the offset is `past_len`, or valid keys less `q_len`.
    pub causal: bool,
    /// Bool (true attends) or added to the scores; broadcast to `[batch, q_heads, q_len, mask_keys]`.
    pub mask: Option<Type>,
    /// Keys that the mask speaks of; those beyond are masked.
    pub mask_keys: usize,
    /// Input 6 says how many keys are valid.
    pub valid: bool,
    pub scores: Scores,
}

impl Attention {
    /// Keys in all.
    pub fn keys(&self) -> usize {
        self.past_len + self.kv_len
    }
}

/// Rotation of pairs of a head's elements by angles that depend on the position.
/// Inputs: x, cos, sin (`[positions, half]`, or `[batch, tokens, half]` without ids), position ids (i64 `[batch, tokens]`).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Rotary {
    pub dtype: DType,
    pub layout: HeadLayout,
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub head_size: usize,
    /// Leading elements of a head that are rotated.
    pub rotated: usize,
    /// Pairs are neighbours rather than halves.
    pub interleaved: bool,
    /// Rows of the angle tables.
    pub positions: usize,
    /// Input 3 gives each token's row.
    pub ids: bool,
}

/// Attention, or the rotation that goes before it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum AttendProblem {
    Attention(Attention),
    Rotary(Rotary),
}

impl AttendProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        match self {
            AttendProblem::Attention(a) => {
                2.0 * (a.batch * a.q_heads * a.q_len) as f64 * a.keys() as f64 * (a.head_size + a.v_head_size) as f64
            }
            AttendProblem::Rotary(r) => 3.0 * (r.batch * r.tokens * r.heads * r.rotated) as f64,
        }
    }
}
