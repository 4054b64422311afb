//! Attention on tensor cores.

use std::sync::Arc;

use super::heads::{self, given, mask, past};
use super::steps;
use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::attend::Attention;
use crate::scalar::arg;

/// Queries of a block.
const QUERIES: usize = 64;

/// Present keys and values, then the attention; all by the general kernel when somebody wants the scores, which are never in memory
/// here.
pub fn launches(call: &Call, p: &Attention) -> Result<Vec<Launch>> {
    if call.outputs.get(3).is_some_and(Option::is_some) {
        return heads::launches(call, p);
    }
    let mut all = heads::present(call, p);
    if p.batch * p.q_heads * p.q_len == 0 {
        return Ok(all);
    }
    let size = if p.head_size.max(p.v_head_size) <= 64 { 64 } else { 128 };
    let dtype = if p.dtype == DType::F16 { "f16" } else { "bf16" };
    let (mask_kind, mask_at) = mask(p)?;
    let mask_pointer = if p.mask.is_some() { given(call, 3) } else { Pointer::Null };
    let valid = if p.valid { given(call, 6) } else { Pointer::Null };
    let places = [given(call, 0), given(call, 1), given(call, 2), mask_pointer, past(call, p, 4), past(call, p, 5), valid];
    let mut args: Vec<Arg> = places.map(Arg::Pointer).to_vec();
    args.extend([mask_kind, p.causal.into()].map(Arg::U32));
    let sizes = [p.q_len, p.keys(), p.past_len, p.mask_keys, p.head_size, p.v_head_size, p.q_heads / p.kv_heads, p.kv_heads];
    args.extend(sizes.map(|n| Arg::U32(n as u32)));
    args.extend([p.scale, p.softcap].map(Arg::F32));
    let at = |heads, tokens, size| steps(p.layout, heads, tokens, size, false);
    let q = at(p.q_heads, p.q_len, p.head_size);
    let [k, v] = [p.head_size, p.v_head_size].map(|size| at(p.kv_heads, p.kv_len, size));
    let y = at(p.q_heads, p.q_len, p.v_head_size);
    args.extend([&q[..3], &k[..3], &v[..3], &y[..3], &mask_at].map(|s| Arg::Block(s.iter().copied().map(Arg::U32).collect())));
    let grid = [p.q_len.div_ceil(QUERIES), p.q_heads, p.batch].map(|n| n as u32);
    let finish = Finish::new(Some(DType::F32), &arg(0), &[], call.output(0)?)?;
    let launch = Launch::new(Variant::named(&format!("flash_{dtype}_{size}")), grid, args);
    all.push(launch.finished(&Arc::new(finish), Pointer::Output(0, 0), &[]));
    Ok(all)
}
