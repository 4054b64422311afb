//! Attention by the kernel that takes all of it.

use std::sync::Arc;

use super::steps;
use crate::base::{DType, Shape};
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::divide::magic;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::reduce::walk::code;
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::attend::{Attention, Scores};
use crate::scalar::arg;

/// Queries of a block.
const QUERIES: usize = 16;

/// Present keys and values, then the attention itself.
pub fn launches(call: &Call, p: &Attention) -> Result<Vec<Launch>> {
    let mut all = present(call, p);
    all.extend(attention(call, p)?);
    Ok(all)
}

/// The address of input `i`, null where it is left out.
pub fn given(call: &Call, i: usize) -> Pointer {
    call.inputs.get(i).and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Input(i, 0))
}

/// The address of a past input, null where there is no past.
pub fn past(call: &Call, p: &Attention, i: usize) -> Pointer {
    if p.past_len > 0 { given(call, i) } else { Pointer::Null }
}

/// The copies of outputs 1 and 2 that somebody wants.
pub fn present(call: &Call, p: &Attention) -> Vec<Launch> {
    let sides = [(1, 4, p.head_size, p.k_transposed), (2, 5, p.v_head_size, false)];
    let wanted = |i: usize| call.outputs.get(i).is_some_and(Option::is_some);
    let one = |(i, old, size, transposed): (usize, usize, usize, bool)| {
        let n = p.batch * p.kv_heads * p.keys() * size;
        let variant = Variant::named("present");
        let mut args =
            vec![Arg::Pointer(past(call, p, old)), Arg::Pointer(Pointer::Input(i, 0)), Arg::Pointer(Pointer::Output(i, 0))];
        args.extend([p.dtype.size_bytes(), n, p.past_len].map(|v| Arg::U32(v as u32)));
        args.extend([size, p.keys(), p.kv_heads].map(divisor));
        args.push(Arg::Block(steps(p.layout, p.kv_heads, p.kv_len, size, transposed).map(Arg::U32).to_vec()));
        (n > 0).then(|| Launch::new(variant, [n.div_ceil(variant.threads as usize * 4) as u32, 1, 1], args))
    };
    sides.into_iter().filter(|s| wanted(s.0)).filter_map(one).collect()
}

/// A number that a kernel divides by, with its multiplier and shift.
pub fn divisor(n: usize) -> Arg {
    let (magic, shift) = magic(n as u32);
    Arg::Block([n as u32, magic, shift].map(Arg::U32).to_vec())
}

/// The mask's element type and its steps along batch, head, query and key.
pub fn mask(p: &Attention) -> Result<(u32, [u32; 4])> {
    let Some(ty) = &p.mask else { return Ok((0, [0; 4])) };
    let full = Shape::from([p.batch, p.q_heads, p.q_len, p.mask_keys]);
    let strides = ty.shape.broadcast_strides(&full).ok_or_else(|| failed("a mask that does not broadcast"))?;
    let mut steps = [0; 4];
    steps.iter_mut().zip(strides.iter()).for_each(|(to, s)| *to = *s as u32);
    Ok((code(ty.dtype), steps))
}

fn attention(call: &Call, p: &Attention) -> Result<Option<Launch>> {
    let out = call.output(0)?;
    let shown = call.outputs.get(3).and_then(Option::as_ref);
    let variant = Variant::named("attend");
    let v_blocks = p.v_head_size.div_ceil(variant.threads as usize).max(1);
    if p.batch * p.q_heads * p.q_len == 0 || (p.v_head_size == 0 && shown.is_none()) {
        return Ok(None);
    }
    let (mask_kind, mask_at) = mask(p)?;
    let mask_pointer = if p.mask.is_some() { given(call, 3) } else { Pointer::Null };
    let valid = if p.valid { given(call, 6) } else { Pointer::Null };
    let places = [given(call, 0), given(call, 1), given(call, 2), mask_pointer, past(call, p, 4), past(call, p, 5), valid];
    let mut args: Vec<Arg> = places.map(Arg::Pointer).to_vec();
    args.push(Arg::Pointer(shown.map_or(Pointer::Null, |_| Pointer::Output(3, 0))));
    let what = match p.scores {
        Scores::Raw => 0,
        Scores::Capped => 1,
        Scores::Masked => 2,
        Scores::Softmax => 3,
    };
    args.extend([code(p.dtype), mask_kind, code(shown.map_or(DType::F32, |t| t.dtype)), what, p.causal.into()].map(Arg::U32));
    let sizes =
        [p.q_heads, p.q_len, p.keys(), p.past_len, p.mask_keys, p.head_size, p.v_head_size, p.q_heads / p.kv_heads.max(1)];
    args.extend(sizes.into_iter().chain([v_blocks, p.kv_heads, p.k_transposed.into()]).map(|n| Arg::U32(n as u32)));
    args.extend([p.scale, p.softcap].map(Arg::F32));
    let q = steps(p.layout, p.q_heads, p.q_len, p.head_size, false);
    let k = steps(p.layout, p.kv_heads, p.kv_len, p.head_size, p.k_transposed);
    let v = steps(p.layout, p.kv_heads, p.kv_len, p.v_head_size, false);
    let y = steps(p.layout, p.q_heads, p.q_len, p.v_head_size, false);
    args.extend([&q[..3], &k, &v[..3], &y[..3], &mask_at].map(|s| Arg::Block(s.iter().copied().map(Arg::U32).collect())));
    let grid = [p.q_len.div_ceil(QUERIES), p.q_heads * v_blocks, p.batch].map(|n| n as u32);
    let finish = Finish::new(Some(DType::F32), &arg(0), &[], out)?.reading(p.dtype);
    Ok(Some(Launch::new(variant, grid, args).finished(&Arc::new(finish), Pointer::Output(0, 0), &[])))
}
