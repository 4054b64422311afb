//! Encoders and decoders, operator by operator.

use std::collections::VecDeque;

use super::trace::{Recorder, Trace};
use crate::base::xorshift::Xorshift;

/// Bytes of an f16.
const HALF: u64 = 2;
/// Bytes of an i64 token.
const TOKEN: u64 = 8;

/// Sizes of a transformer, f16.
#[derive(Debug, Clone, Copy)]
pub struct Transformer {
    /// Layers.
    pub layers: u64,
    /// Width.
    pub hidden: u64,
    /// Attention heads.
    pub heads: u64,
    /// Tokens that there are.
    pub vocabulary: u64,
}

/// BERT base (Devlin et al., 2018).
pub const BERT_BASE: Transformer = Transformer { layers: 12, hidden: 768, heads: 12, vocabulary: 30522 };
/// A decoder of 1.3 billion parameters (GPT-3 XL's sizes; Brown et al., 2020).
const DECODER: Transformer = Transformer { layers: 24, hidden: 2048, heads: 16, vocabulary: 50257 };

/// One operator: allocates its output, then frees the inputs it was the last to read.
fn op(to: &mut Recorder, bytes: u64, last_use_of: &[u32]) -> u32 {
    let out = to.alloc(bytes);
    to.free_all(last_use_of.iter().copied());
    out
}

impl Transformer {
    /// Allocates the weights.
    pub fn load(&self, to: &mut Recorder) -> Vec<u32> {
        let h = self.hidden;
        let layer = [h * h, h, h * h, h, h * h, h, h * h, h, h, h, 4 * h * h, 4 * h, 4 * h * h, h, h, h];
        let embeddings = [self.vocabulary * h, 512 * h, 2 * h, h, h];
        let all = embeddings.into_iter().chain((0..self.layers).flat_map(|_| layer));
        all.map(|n| to.alloc(n * HALF)).collect()
    }

    /// One run of an encoder; gives its output.
    pub fn encode(&self, to: &mut Recorder, batch: u64, length: u64) -> u32 {
        let tokens = batch * length;
        let wide = tokens * self.hidden * HALF;
        let (ids, mask) = (to.alloc(tokens * TOKEN), to.alloc(tokens * TOKEN));
        let bias = op(to, tokens * HALF, &[mask]);
        let embedded = op(to, wide, &[ids]);
        let mut x = op(to, wide, &[embedded]);
        for _ in 0..self.layers {
            let scores = batch * self.heads * length * length * HALF;
            let attended = attend(to, wide, scores);
            x = self.feed_forward(to, wide, attended, x);
        }
        op(to, batch * self.hidden * HALF, &[x, bias])
    }

    /// Projection, residual sum and norm, two products with an activation between, residual sum and norm.
    fn feed_forward(&self, to: &mut Recorder, wide: u64, attended: u32, x: u32) -> u32 {
        let projected = op(to, wide, &[attended]);
        let sum = op(to, wide, &[projected, x]);
        let norm = op(to, wide, &[sum]);
        let up = to.alloc(4 * wide);
        let active = op(to, 4 * wide, &[up]);
        let down = op(to, wide, &[active]);
        let sum = op(to, wide, &[down, norm]);
        op(to, wide, &[sum])
    }

    /// One token of each of `batch` sequences through all layers. `cache` gives each layer's keys and values, at liberty to allocate.
    fn decode(&self, to: &mut Recorder, batch: u64, length: u64, mut cache: impl FnMut(&mut Recorder, usize)) {
        let wide = batch * self.hidden * HALF;
        let ids = to.alloc(batch * TOKEN);
        let mut x = op(to, wide, &[ids]);
        for layer in 0..self.layers as usize {
            let (q, k, v) = (to.alloc(wide), to.alloc(wide), to.alloc(wide));
            cache(to, layer);
            let scores = op(to, batch * self.heads * length * HALF, &[q, k, v]);
            let shares = op(to, batch * self.heads * length * HALF, &[scores]);
            let attended = op(to, wide, &[shares]);
            x = self.feed_forward(to, wide, attended, x);
        }
        let logits = op(to, batch * self.vocabulary * HALF, &[x]);
        to.free(logits);
    }

    /// Bytes of one layer's keys, or values, of a token.
    fn cached(&self) -> u64 {
        self.hidden * HALF
    }
}

/// Projections, transposes, scores, softmax and their product with the values.
fn attend(to: &mut Recorder, wide: u64, scores: u64) -> u32 {
    let projections = [0; 3].map(|_| to.alloc(wide));
    let [q, k, v] = projections.map(|p| op(to, wide, &[p]));
    let products = op(to, scores, &[q, k]);
    let shares = op(to, scores, &[products]);
    let context = op(to, wide, &[shares, v]);
    op(to, wide, &[context])
}

/// Runs of an encoder whose batch and length `draw` gives; a result is kept until the one after the next.
fn encoder(name: &str, runs: usize, mut draw: impl FnMut(&mut Xorshift) -> (u64, u64)) -> Trace {
    let (mut to, mut random, mut kept) = (Recorder::default(), Xorshift::new(1), VecDeque::new());
    let weights = BERT_BASE.load(&mut to);
    for _ in 0..runs {
        let (batch, length) = draw(&mut random);
        kept.push_back(BERT_BASE.encode(&mut to, batch, length));
        if kept.len() > 2 {
            to.free_all(kept.pop_front());
        }
    }
    to.free_all(kept.into_iter().chain(weights));
    to.finish(name)
}

/// Batches of 1 to 32 and lengths of 8 to 512, any of them.
pub fn bert_var() -> Trace {
    encoder("bert-var", 150, |r| (1 + r.below(32) as u64, 8 + r.below(505) as u64))
}

/// Batches of 1, 2, 4, 8, 16 and lengths of 32, 64, 128, 256.
pub fn bert_bucket() -> Trace {
    encoder("bert-bucket", 150, |r| (1 << r.below(5), 32 << r.below(4)))
}

/// Batches of sequences whose keys and values are joined with each new token's: a new buffer a token, layer and side.
pub fn kv_concat() -> Trace {
    let (mut to, mut random) = (Recorder::default(), Xorshift::new(2));
    let weights = DECODER.load(&mut to);
    for _ in 0..6 {
        let (batch, prompt, tokens) = (1 + random.below(8) as u64, 16 + random.below(400) as u64, 20 + random.below(60) as u64);
        let bytes = |length| batch * length * DECODER.cached();
        let mut caches: Vec<[u32; 2]> = (0..DECODER.layers).map(|_| [0; 2].map(|_| to.alloc(bytes(prompt)))).collect();
        for length in prompt + 1..=prompt + tokens {
            DECODER.decode(&mut to, batch, length, |to, layer| {
                caches[layer] = caches[layer].map(|old| op(to, bytes(length), &[old]));
            });
        }
        to.free_all(caches.into_iter().flatten());
    }
    to.free_all(weights);
    to.finish("llm-kv-concat")
}

/// A sequence under way: its length, its end, and the pieces of its caches, 32 tokens each.
struct Sequence {
    length: u64,
    end: u64,
    pieces: Vec<u32>,
}

/// Tokens that a piece of a cache holds.
const PIECE: u64 = 32;

/// Up to 16 sequences at once, of 64 to 800 tokens; when one ends another comes a few tokens later.
pub fn kv_growth() -> Trace {
    let (mut to, mut random) = (Recorder::default(), Xorshift::new(3));
    let weights = DECODER.load(&mut to);
    let mut running: Vec<Sequence> = Vec::new();
    let piece = PIECE * DECODER.cached() * 2 * DECODER.layers;
    for _ in 0..400 {
        if running.len() < 16 && random.below(4) == 0 {
            let length = 16 + random.below(240) as u64;
            let prompt = DECODER.encode(&mut to, 1, length);
            to.free(prompt);
            let pieces = (0..length.div_ceil(PIECE)).map(|_| to.alloc(piece)).collect();
            running.push(Sequence { length, end: length + 48 + random.below(500) as u64, pieces });
        }
        let longest = running.iter().map(|s| s.length).max().unwrap_or(0);
        if longest > 0 {
            DECODER.decode(&mut to, running.len() as u64, longest, |_, _| {});
        }
        for s in &mut running {
            s.length += 1;
            if s.length.div_ceil(PIECE) > s.pieces.len() as u64 {
                s.pieces.push(to.alloc(piece));
            }
        }
        running.extract_if(.., |s| s.length >= s.end).for_each(|s| to.free_all(s.pieces));
    }
    to.free_all(running.into_iter().flat_map(|s| s.pieces).chain(weights));
    to.finish("kv-growth")
}
