//! Attention and rotary embedding.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::graph::problem::AttendProblem;
use halfbyte::graph::problem::attend::{Attention, HeadLayout, Rotary, Scores};
use halfbyte::graph::{Problem, Type};
use halfbyte::scalar::bounds::Range;

use super::check::*;
use super::device::reference;

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn attention(p: &Attention) -> Problem {
    Problem::Attend(AttendProblem::Attention(p.clone()))
}

/// Types of the result, of present keys and values and of the scores.
fn types(p: &Attention, dtype: DType) -> [Type; 4] {
    let y = Type::new(dtype, [p.batch * p.q_heads * p.q_len * p.v_head_size]);
    let [k, v] = [p.head_size, p.v_head_size].map(|size| Type::new(dtype, [p.batch, p.kv_heads, p.keys(), size]));
    [y, k, v, Type::new(dtype, [p.batch, p.q_heads, p.q_len, p.keys()])]
}

/// What attention may give, result and scores: scores are off by their products' rounding, shares by twice the largest of that and
/// their own exponentials', results by the shares' and the last product's.
fn attended(p: &Attention, inputs: &[Option<Tensor>]) -> [Vec<Range>; 2] {
    let outputs = types(p, DType::F64);
    let wide = Attention { dtype: DType::F64, ..p.clone() };
    let [mut exact, mut magnitudes] = exact(inputs);
    for i in [3, 6] {
        (exact[i], magnitudes[i]) = (inputs[i].clone(), inputs[i].clone());
    }
    let plain = Attention { mask: None, causal: false, valid: false, softcap: 0.0, scores: Scores::Raw, ..wide.clone() };
    let largest = reference(&attention(&plain), &magnitudes, &outputs)[3].to_f64().into_iter().fold(0.0, f64::max);
    let mask = inputs[3].as_ref().filter(|t| t.dtype() == DType::F32);
    let mask = mask.map_or(0.0, |t| t.to_f64().iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs())));
    let of_product = gamma(p.head_size + 2) * largest;
    let of_score = of_product + 16.0 * U * f64::from(p.softcap) + U * (largest + mask);
    let of_share = 4.0 * of_score + (2.0 * (largest + mask) + 8.0) * U + gamma(p.keys() + 2);
    let results = reference(&attention(&wide), &exact, &outputs);
    let (y, shown) = (results[0].to_f64(), results[3].to_f64());
    let shown = around(&shown, |i| match p.scores {
        Scores::Raw => of_product,
        Scores::Capped | Scores::Masked => of_score,
        // Exponentials below e^-87.3 are 0.
        Scores::Softmax => of_share * shown[i] + (-87.3f64).exp(),
    });
    (exact[2], exact[5]) = (magnitudes[2].clone(), magnitudes[5].clone());
    let terms = reference(&attention(&wide), &exact, &outputs)[0].to_f64();
    // Tensor cores take shares rounded to the type of the values.
    let of_factor = [(DType::F16, 11), (DType::BF16, 8)].iter().find(|t| t.0 == p.dtype).map_or(0.0, |t| 0.5f64.powi(t.1));
    [around(&y, |i| 1.01 * (of_share + of_factor + gamma(p.keys() + 2)) * terms[i]), shown]
}

/// Scores of a few units: in f32 the rounding of large ones decides everything.
fn calm(r: &mut Xorshift, dtype: DType, n: usize) -> Option<Tensor> {
    Some(tensor(dtype, &[n], &(0..n).map(|_| r.unit() * 4.0 - 2.0).collect::<Vec<_>>()))
}

/// Runs the attention by every kernel: the result alone, and with all other outputs unless keys are transposed.
fn check(r: &mut Xorshift, p: &Attention) {
    let (q, kv, past) = (p.batch * p.q_heads * p.q_len, p.batch * p.kv_heads * p.kv_len, p.batch * p.kv_heads * p.past_len);
    let mut inputs = vec![calm(r, p.dtype, q * p.head_size), calm(r, p.dtype, kv * p.head_size)];
    inputs.extend([calm(r, p.dtype, kv * p.v_head_size), p.mask.as_ref().map(|t| random(r, t.dtype, &t.shape))]);
    inputs.extend([p.head_size, p.v_head_size].map(|size| calm(r, p.dtype, past * size).filter(|_| p.past_len > 0)));
    inputs.push(p.valid.then(|| Tensor::vector(&(0..p.batch).map(|b| 2 * b as i64).collect::<Vec<_>>())));
    let allowed = attended(p, &inputs).map(|ranges| rounded(&ranges, p.dtype));
    let [y, k, v, scores] = types(p, p.dtype);
    all_outputs(&attention(p), &inputs, &[], &[(y.clone(), allowed[0].clone())]);
    if p.k_transposed {
        return;
    }
    let all = [y.clone(), k.clone(), v.clone(), scores.clone()];
    let present = reference(&attention(p), &inputs, &all);
    let [keys, values] = [1, 2].map(|i| present[i].to_f64().into_iter().map(Range::point).collect());
    let [result, shown] = allowed;
    all_outputs(&attention(p), &inputs, &[], &[(y, result), (k, keys), (v, values), (scores, shown)]);
}

#[test]
fn attention_heads() {
    let mut r = Xorshift::new(3);
    let shapes = [
        [1, 1, 1, 1, 1, 1, 1],
        [2, 4, 2, 5, 7, 6, 9],
        [1, 3, 3, 37, 65, 32, 32],
        [2, 2, 1, 3, 0, 4, 4],
        [1, 4, 2, 1, 50, 64, 33],
    ];
    let variants = [(0.0, false, None, false), (1.5, true, None, false), (0.0, true, None, true)];
    let masks = [DType::Bool, DType::F32].into_iter().flat_map(|m| [(0.0, false, Some(m), false), (0.0, true, Some(m), false)]);
    let layouts = [(HeadLayout::HeadsFirst, false), (HeadLayout::TokensFirst, false), (HeadLayout::HeadsFirst, true)];
    let scores = [Scores::Raw, Scores::Capped, Scores::Masked, Scores::Softmax];
    for (shape, (layout, k_transposed)) in shapes.iter().flat_map(|s| layouts.map(|l| (*s, l))) {
        for (softcap, causal, mask, valid) in variants.into_iter().chain(masks.clone()) {
            let [batch, q_heads, kv_heads, q_len, kv_len, head_size, v_head_size] = shape;
            let past_len = if k_transposed { 0 } else { [0, 1, 6, 19][r.below(4)] };
            let keys = past_len + kv_len;
            let p = Attention {
                dtype: FLOATS[r.below(3)],
                layout,
                batch,
                q_heads,
                kv_heads,
                q_len,
                kv_len,
                past_len,
                head_size,
                v_head_size,
                k_transposed,
                scale: 0.3,
                softcap,
                causal,
                mask: mask.map(|d| Type::new(d, if causal { [batch, 1, 1, keys] } else { [batch, q_heads, q_len, keys] })),
                mask_keys: keys,
                valid,
                scores: scores[r.below(4)],
            };
            check(&mut r, &p);
        }
    }
}

/// Shapes beyond a tile of queries or keys, in types that tensor cores take.
#[test]
fn attention_in_tiles() {
    let mut r = Xorshift::new(61);
    for (n, [batch, q_heads, kv_heads, q_len, kv_len, head_size, v_head_size]) in
        [[1, 2, 1, 70, 130, 64, 64], [2, 1, 1, 5, 200, 128, 128], [1, 2, 2, 65, 63, 72, 40], [1, 1, 1, 129, 65, 8, 16]]
            .into_iter()
            .enumerate()
    {
        for (dtype, mask) in [(DType::F16, None), (DType::BF16, Some(DType::Bool)), (DType::F16, Some(DType::F32))] {
            let past_len = [0, 67][n % 2];
            let p = Attention {
                dtype,
                layout: [HeadLayout::HeadsFirst, HeadLayout::TokensFirst][n / 2],
                batch,
                q_heads,
                kv_heads,
                q_len,
                kv_len,
                past_len,
                head_size,
                v_head_size,
                k_transposed: false,
                scale: 0.5 / (head_size as f32).sqrt(),
                softcap: [0.0, 2.0][r.below(2)],
                causal: mask.is_none() || n == 1,
                mask: mask.map(|d| Type::new(d, [1, q_heads, 1, past_len + kv_len])),
                mask_keys: past_len + kv_len,
                valid: n == 3,
                scores: Scores::Raw,
            };
            check(&mut r, &p);
        }
    }
}

#[test]
fn rotary_embedding() {
    let mut r = Xorshift::new(41);
    for [batch, tokens, heads, head_size, rotated] in
        [[1, 1, 1, 2, 2], [2, 5, 3, 10, 6], [1, 40, 4, 64, 64], [3, 0, 2, 8, 8], [2, 3, 2, 66, 62]]
    {
        for (layout, interleaved, ids) in [
            (HeadLayout::HeadsFirst, false, false),
            (HeadLayout::TokensFirst, false, true),
            (HeadLayout::HeadsFirst, true, true),
            (HeadLayout::TokensFirst, true, false),
        ] {
            let dtype = FLOATS[r.below(3)];
            let positions = if ids { 7 } else { batch * tokens };
            let p = Rotary { dtype, layout, batch, tokens, heads, head_size, rotated, interleaved, positions, ids };
            let n = batch * tokens * heads * head_size;
            let angles: Vec<f64> = (0..positions * rotated / 2).map(|_| r.unit() * 7.0).collect();
            let table =
                |f: fn(f64) -> f64| Some(tensor(dtype, &[angles.len()], &angles.iter().map(|&a| f(a)).collect::<Vec<_>>()));
            let places: Vec<i64> = (0..batch * tokens).map(|_| r.below(positions.max(1)) as i64).collect();
            let inputs = [calm(&mut r, dtype, n), table(f64::cos), table(f64::sin), ids.then(|| Tensor::vector(&places))];
            let problem = |dtype| Problem::Attend(AttendProblem::Rotary(Rotary { dtype, ..p.clone() }));
            let [mut wide, _] = exact(&inputs);
            wide[3] = inputs[3].clone();
            let want = reference(&problem(DType::F64), &wide, &[Type::new(DType::F64, [n])])[0].to_f64();
            // Two products of factors of at most 2 and 1, and their sum.
            let allowed = rounded(&around(&want, |_| gamma(3) * 4.0), dtype);
            each_kernel(&problem(dtype), &inputs, &[], Type::new(dtype, [n]), &allowed);
        }
    }
}
