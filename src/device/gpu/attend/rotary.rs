//! Rotary position embedding.

use std::sync::Arc;

use super::heads::divisor;
use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::reduce::walk::code;
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::attend::{HeadLayout, Rotary};
use crate::scalar::arg;

/// The rotation of input 0.
pub fn launches(call: &Call, p: &Rotary) -> Result<Vec<Launch>> {
    let n = p.batch * p.tokens * p.heads * p.head_size;
    if n == 0 {
        return Ok(Vec::new());
    }
    let ids = if p.ids { Pointer::Input(3, 0) } else { Pointer::Null };
    let mut args: Vec<Arg> = [0, 1, 2].map(|i| Arg::Pointer(Pointer::Input(i, 0))).to_vec();
    args.extend([Arg::Pointer(ids), Arg::U32(code(p.dtype))]);
    args.extend([n, p.rotated, p.positions].map(|v| Arg::U32(v as u32)));
    args.extend([p.layout == HeadLayout::TokensFirst, p.interleaved].map(|b| Arg::U32(b.into())));
    args.extend([p.head_size, p.heads, p.tokens].map(divisor));
    let variant = Variant::named("rotary");
    let finish = Finish::new(Some(DType::F32), &arg(0), &[], call.output(0)?)?.reading(p.dtype);
    let launch = Launch::new(variant, [n.div_ceil(variant.threads as usize) as u32, 1, 1], args);
    Ok(vec![launch.finished(&Arc::new(finish), Pointer::Output(0, 0), &[])])
}
