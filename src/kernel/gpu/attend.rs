//! Kernels of the attend family.

use super::row::{ELEMENTS, LAUNCH_US, launch_us, row};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::attend::Attention;
use crate::graph::problem::{AttendProblem, Family};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("cuda-sm61-heads", Family::Attend, Capabilities::SM_61, heads, |p, info| {
        cost_us(p, info.peaks.f32_gflops * 0.35, 16, info)
    }),
    row("cuda-sm80-flash", Family::Attend, Capabilities::SM_80, flash, |p, info| {
        cost_us(p, info.peaks.f16_gflops * 0.4, 64, info)
    }),
];

pub(super) fn heads(problem: &Problem) -> Result<(), &'static str> {
    let float = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    match problem {
        Problem::Attend(AttendProblem::Rotary(r)) => match () {
            _ if !float(r.dtype) => Err("of f32, f16 and bf16"),
            _ if r.batch * r.tokens * r.heads * r.head_size > ELEMENTS => Err("at most 2^31 - 1 elements"),
            _ => Ok(()),
        },
        Problem::Attend(AttendProblem::Attention(a)) => match () {
            _ if !float(a.dtype) => Err("of f32, f16 and bf16"),
            _ if elements(a) > ELEMENTS => Err("at most 2^31 - 1 elements"),
            _ if a.batch > 65_535 || a.q_heads * a.v_head_size.div_ceil(128) > 65_535 => {
                Err("at most 65,535 heads and batch entries")
            }
            _ if a.mask.as_ref().is_some_and(|m| !float(m.dtype) && m.dtype != DType::Bool) => Err("masks of bool and of floats"),
            _ => Ok(()),
        },
        _ => Err("not attention"),
    }
}

fn flash(problem: &Problem) -> Result<(), &'static str> {
    let Problem::Attend(AttendProblem::Attention(a)) = problem else { return Err("not attention") };
    match () {
        _ if !matches!(a.dtype, DType::F16 | DType::BF16) => Err("of f16 and bf16"),
        _ if a.k_transposed => Err("keys that lie transposed"),
        _ if [a.head_size, a.v_head_size].iter().any(|s| *s == 0 || *s > 128 || !s.is_multiple_of(8)) => {
            Err("heads of at most 128 elements, a multiple of 8")
        }
        _ => heads(problem),
    }
}

/// Elements of the largest tensor that is indexed, scores to be shown among them.
fn elements(a: &Attention) -> usize {
    let queries = a.batch * a.q_heads * a.q_len;
    let keys = a.batch * a.kv_heads * a.keys();
    (queries * a.head_size.max(a.v_head_size).max(a.keys())).max(keys * a.head_size.max(a.v_head_size))
}

/// Operations at so many a microsecond (in thousands of millions a second), or the bytes moved. A block does the work
/// of so many queries even for one.
pub(super) fn cost_us(problem: &Problem, gflops: f64, queries: usize, info: &DeviceInfo) -> f64 {
    let Problem::Attend(p) = problem else { return f64::INFINITY };
    match p {
        AttendProblem::Rotary(r) => {
            let bytes = 2 * r.batch * r.tokens * r.heads * r.head_size * r.dtype.size_bytes();
            launch_us(info, bytes as f64, 0.65, 0.0)
        }
        AttendProblem::Attention(a) => {
            let padded = a.q_len.next_multiple_of(queries) as f64 / a.q_len.max(1) as f64;
            let sizes = (a.head_size + a.v_head_size) * a.dtype.size_bytes();
            let bytes = (a.batch * (a.kv_heads * a.keys() + a.q_heads * a.q_len) * sizes) as f64;
            let causal = if a.causal && a.q_len > 1 { 0.5 } else { 1.0 };
            LAUNCH_US + launch_us(info, bytes, 0.5, p.flops() * padded * causal / gflops.max(1.0) / 1e3)
        }
    }
}
