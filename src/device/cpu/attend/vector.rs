//! Vector attention: heads shared between threads; f16 and bf16 are computed as f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::head::{Buffers, Head, Tokens};
use super::mask::Mask;
use super::reference;
use crate::base::{DType, TensorViewMut};
use crate::device::cpu::Call;
use crate::device::cpu::isa::Isa;
use crate::device::cpu::widen::to_f32;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::AttendProblem;
use crate::graph::problem::attend::{Attention, HeadLayout};

/// Multiplications and additions below which heads are not shared between threads.
const SHARED_FLOPS: f64 = 1e6;

/// Queries, keys and values of all heads.
struct Operands<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

/// Attention without past; present keys and values and scores as outputs are left to the reference.
pub(super) fn run(call: &mut Call, isa: Isa) -> Result<()> {
    let Problem::Attend(AttendProblem::Attention(p)) = call.problem else { return reference::run(call) };
    if call.outputs.iter().skip(1).any(|o| o.is_some()) {
        return reference::run(call);
    }
    let input = |i: usize| match &call.inputs[i] {
        Some(v) => Ok(to_f32(v, 0, v.numel())),
        None => Err(Error::BadInput(format!("attention without input {i}"))),
    };
    let (q, k, v) = (input(0)?, input(1)?, input(2)?);
    let mask = Mask::new(p, call.inputs)?;
    let Some(Some(y)) = call.outputs.first_mut() else { return Ok(()) };
    let operands = Operands { q: &q, k: &k, v: &v };
    match y.dtype {
        DType::F32 => all(isa, p, &operands, &mask, y.slice::<f32>()),
        dtype => {
            let mut wide = vec![0.0; y.numel()];
            all(isa, p, &operands, &mask, &mut wide);
            narrow(dtype, y, &wide);
        }
    }
    Ok(())
}

fn narrow(dtype: DType, y: &mut TensorViewMut, wide: &[f32]) {
    match dtype {
        DType::F16 => y.slice::<f16>().convert_from_f32_slice(wide),
        _ => y.slice::<bf16>().convert_from_f32_slice(wide),
    }
}

/// All heads; with tokens first, the heads of one batch entry share their rows of y and go one after another.
fn all(isa: Isa, p: &Attention, operands: &Operands, mask: &Mask, y: &mut [f32]) {
    let head_size = p.q_len * p.v_head_size;
    let (piece, heads) = match p.layout {
        HeadLayout::HeadsFirst => (head_size, 1),
        HeadLayout::TokensFirst => (head_size * p.q_heads, p.q_heads),
    };
    if y.is_empty() {
        return;
    }
    let work = |buffers: &mut Buffers, (i, y): (usize, &mut [f32])| {
        for h in 0..heads {
            let (b, h) = if heads == 1 { (i / p.q_heads, i % p.q_heads) } else { (i, h) };
            one(isa, p, operands, mask, [b, h], y, buffers);
        }
    };
    if rayon::current_num_threads() == 1 || AttendProblem::Attention(p.clone()).flops() < SHARED_FLOPS {
        let mut buffers = Buffers::default();
        y.chunks_mut(piece).enumerate().for_each(|part| work(&mut buffers, part));
    } else {
        y.par_chunks_mut(piece).enumerate().for_each_init(Buffers::default, work);
    }
}

fn one(isa: Isa, p: &Attention, all: &Operands, mask: &Mask, [b, h]: [usize; 2], y: &mut [f32], buffers: &mut Buffers) {
    let tokens = |values, heads: usize, len, size, h| {
        let at = reference::place(p.layout, [heads, len, size], b, h, 0);
        let step = if p.layout == HeadLayout::HeadsFirst { size } else { heads * size };
        Tokens { values: tail(values, at), step }
    };
    let kv = h / (p.q_heads / p.kv_heads);
    let q = tokens(all.q, p.q_heads, p.q_len, p.head_size, h);
    let mut k = tokens(all.k, p.kv_heads, p.kv_len, p.head_size, kv);
    let v = tokens(all.v, p.kv_heads, p.kv_len, p.v_head_size, kv);
    if p.k_transposed {
        k.step = p.kv_len;
    }
    let (start, y_step) = match p.layout {
        HeadLayout::HeadsFirst => (0, p.v_head_size),
        HeadLayout::TokensFirst => (h * p.v_head_size, p.q_heads * p.v_head_size),
    };
    let y = &mut y[start..];
    match isa {
        Isa::Portable | Isa::Avx2 | Isa::Neon => isa.run(Head::<16> { problem: p, mask, b, h, q, k, v, y, y_step, buffers }),
        Isa::Avx512 => isa.run(Head::<32> { problem: p, mask, b, h, q, k, v, y, y_step, buffers }),
    }
}

/// `values` from `at` on; empty when there are none.
fn tail(values: &[f32], at: usize) -> &[f32] {
    values.get(at..).unwrap_or(&[])
}
