//! Vector attention: heads shared between threads; f16 and bf16 are computed as f32.

use std::borrow::Cow;
use std::cell::RefCell;
use std::marker::PhantomData;

use super::head::{Buffers, Head, In, Tokens};
use super::mask::Mask;
use super::{reference, rotary};
use crate::base::{TensorView, TensorViewMut};
use crate::device::cpu::disjoint::Disjoint;
#[cfg(target_arch = "x86_64")]
use crate::device::cpu::gemm::blocks;
#[cfg(target_arch = "aarch64")]
use crate::device::cpu::gemm::simd::Neon;
use crate::device::cpu::gemm::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::device::cpu::gemm::simd::{Avx2, Avx512};
use crate::device::cpu::isa::Isa;
use crate::device::cpu::rows::in_f32;
use crate::device::cpu::share;
use crate::device::cpu::widen::to_f32;
use crate::device::cpu::{Call, CpuCode};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::AttendProblem;
use crate::graph::problem::attend::{Attention, HeadLayout};
#[cfg(target_arch = "x86_64")]
use crate::hardware::Capabilities;

/// Multiplications and additions below which heads are not shared between threads.
const SHARED_FLOPS: f64 = 1e6;

/// Queries, keys and values of all heads; of the past ones first.
struct Operands<'a> {
    q: &'a [f32],
    k: [&'a [f32]; 2],
    v: [&'a [f32]; 2],
}

/// Solves the problems that `kernel::attend` accepts.
pub(super) struct On(pub Isa);

impl CpuCode for On {
    fn run(&self, call: &mut Call) -> Result<()> {
        match call.problem {
            Problem::Attend(AttendProblem::Attention(p)) => attention(self.0, p, call),
            Problem::Attend(AttendProblem::Rotary(p)) => rotary::run(self.0, p, call),
            _ => Err(Error::BadInput("an attend kernel was called with another family's problem".into())),
        }
    }
}

fn attention(isa: Isa, p: &Attention, call: &mut Call) -> Result<()> {
    let view = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref());
    let given = |i: usize| view(i).ok_or_else(|| Error::BadInput(format!("attention without input {i}")));
    let mut outputs = call.outputs.iter_mut().map(Option::as_mut);
    let [y, keys, values, shown] = std::array::from_fn(|_| outputs.next().flatten());
    for (out, [new, past], size) in [(keys, [1, 4], p.head_size), (values, [2, 5], p.v_head_size)] {
        match out {
            Some(_) if p.k_transposed => return Err(Error::BadInput("transposed keys have no present ones".into())),
            Some(out) => present(p, view(past), given(new)?, size, out),
            None => {}
        }
    }
    if y.is_none() && shown.is_none() {
        return Ok(());
    }
    let (q, k, v) = (wide(given(0)?), wide(given(1)?), wide(given(2)?));
    let [past_k, past_v] = [4, 5].map(|i| view(i).map(wide).unwrap_or_default());
    let operands = Operands { q: &q, k: [&past_k, &k], v: [&past_v, &v] };
    let mask = Mask::new(p, call.inputs)?;
    let elements = p.batch * p.q_heads * p.q_len * p.v_head_size;
    floats(y, elements, |y| floats(shown, 0, |shown| all(isa, p, &operands, &mask, y, shown)));
    Ok(())
}

/// All elements as f32.
fn wide<'a>(view: &TensorView<'a>) -> Cow<'a, [f32]> {
    to_f32(view, 0, view.numel())
}

/// Lets `f` write an output, or `unwanted` elements that nobody reads.
fn floats(out: Option<&mut TensorViewMut>, unwanted: usize, f: impl FnOnce(&mut [f32])) {
    match out {
        Some(out) => in_f32(out.dtype, out.bytes, f),
        None => f(&mut vec![0.0; unwanted]),
    }
}

/// Past and new tokens of each head as `[batch, heads, tokens, size]`.
fn present(p: &Attention, past: Option<&TensorView>, new: &TensorView, size: usize, out: &mut TensorViewMut) {
    let token = size * out.dtype.size_bytes();
    let old = p.past_len * token;
    for (head, out) in out.bytes.chunks_exact_mut((p.keys() * token).max(1)).enumerate() {
        let (first, rest) = out.split_at_mut(old);
        if let Some(past) = past {
            first.copy_from_slice(&past.bytes[head * old..][..old]);
        }
        let at = |t| reference::place(p.layout, [p.kv_heads, p.kv_len, token], head / p.kv_heads, head % p.kv_heads, t);
        match p.layout {
            HeadLayout::HeadsFirst => rest.copy_from_slice(&new.bytes[at(0)..][..rest.len()]),
            HeadLayout::TokensFirst => {
                rest.chunks_exact_mut(token).enumerate().for_each(|(t, to)| to.copy_from_slice(&new.bytes[at(t)..][..token]));
            }
        }
    }
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// All heads.
fn all(isa: Isa, p: &Attention, operands: &Operands, mask: &Mask, y: &mut [f32], shown: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let shows = !shown.is_empty();
    let (y, shown, scores) = (Disjoint::new(y), Disjoint::new(shown), p.q_len * p.keys());
    let work = |i: usize| {
        // SAFETY: each head has scores of its own.
        let shown = shows.then(|| unsafe { shown.part(i * scores, scores) });
        let mut buffers = BUFFERS.take();
        one(isa, p, operands, mask, [i / p.q_heads, i % p.q_heads], &y, shown, &mut buffers);
        BUFFERS.set(buffers);
    };
    let heads = p.batch * p.q_heads;
    let shared = AttendProblem::Attention(p.clone()).flops() >= SHARED_FLOPS;
    share::each(heads, if shared { 1 } else { heads }, work);
}

#[allow(clippy::too_many_arguments)]
fn one(
    isa: Isa,
    p: &Attention,
    all: &Operands,
    mask: &Mask,
    [b, h]: [usize; 2],
    y: &Disjoint<f32>,
    shown: Option<&mut [f32]>,
    buffers: &mut Buffers,
) {
    let tokens = |layout, values, heads: usize, len, size, h| {
        let at = reference::place(layout, [heads, len, size], b, h, 0);
        let step = if layout == HeadLayout::HeadsFirst { size } else { heads * size };
        Tokens { values: tail(values, at), step, len }
    };
    let kv = h / (p.q_heads / p.kv_heads);
    let both = |[past, new]: [_; 2], size| {
        [
            tokens(HeadLayout::HeadsFirst, past, p.kv_heads, p.past_len, size, kv),
            tokens(p.layout, new, p.kv_heads, p.kv_len, size, kv),
        ]
    };
    let q = tokens(p.layout, all.q, p.q_heads, p.q_len, p.head_size, h);
    let (mut k, v) = (both(all.k, p.head_size), both(all.v, p.v_head_size));
    if p.k_transposed {
        k[1].step = p.kv_len;
    }
    let y_step = if p.layout == HeadLayout::HeadsFirst { p.v_head_size } else { p.q_heads * p.v_head_size };
    let y_at = reference::place(p.layout, [p.q_heads, p.q_len, p.v_head_size], b, h, 0);
    let head = Head { problem: p, mask, b, h, q, k, v, y, y_at, y_step, shown, buffers };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if blocks::present(Capabilities::AVX512) => isa.run(In::<Avx512, 8>(head, PhantomData)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if blocks::present(Capabilities::AVX2) => isa.run(In::<Avx2, 4>(head, PhantomData)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => isa.run(In::<Neon, 6>(head, PhantomData)),
        _ => isa.run(In::<Portable, 4>(head, PhantomData)),
    }
}

/// `values` from `at` on; empty when there are none.
fn tail(values: &[f32], at: usize) -> &[f32] {
    values.get(at..).unwrap_or(&[])
}
