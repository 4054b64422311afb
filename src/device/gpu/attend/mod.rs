//! Attention and rotary embedding: docs/cuda-rows.md.

mod flash;
mod heads;
mod rotary;

use super::call::{Call, GpuKernel};
use super::device::failed;
use super::launch::Launch;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::AttendProblem;
use crate::graph::problem::attend::HeadLayout;

pub(super) static KERNELS: &[GpuKernel] = &[
    GpuKernel { name: "sm61-heads", pack: pack_nothing, scratch_bytes: no_scratch, launches },
    GpuKernel { name: "any-heads", pack: pack_nothing, scratch_bytes: no_scratch, launches },
    GpuKernel { name: "sm80-flash", pack: pack_nothing, scratch_bytes: no_scratch, launches: flash },
];

fn launches(call: &Call) -> Result<Vec<Launch>> {
    match call.problem {
        Problem::Attend(AttendProblem::Attention(p)) => heads::launches(call, p),
        Problem::Attend(AttendProblem::Rotary(p)) => rotary::launches(call, p),
        _ => Err(failed("not attention")),
    }
}

fn flash(call: &Call) -> Result<Vec<Launch>> {
    match call.problem {
        Problem::Attend(AttendProblem::Attention(p)) => flash::launches(call, p),
        _ => Err(failed("not attention")),
    }
}

/// Steps of batch, head, token and element through `[batch, heads, tokens, size]` as it lies.
fn steps(layout: HeadLayout, heads: usize, tokens: usize, size: usize, transposed: bool) -> [u32; 4] {
    let (head, token, element) = match layout {
        _ if transposed => (tokens * size, 1, tokens),
        HeadLayout::HeadsFirst => (tokens * size, size, 1),
        HeadLayout::TokensFirst => (size, heads * size, 1),
    };
    [heads * tokens * size, head, token, element].map(|n| n as u32)
}
