//! Kernels of the recurrent family.

use super::row::{ELEMENTS, LAUNCH_US, row};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::recurrent::Cell;
use crate::graph::problem::{Family, RecurrentProblem};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("cuda-sm61-recurrent", Family::Recurrent, Capabilities::SM_61, floats, cost_us),
    row("cuda-sm61-int8-recurrent", Family::Recurrent, Capabilities::SM_61, int8, cost_us),
];

/// Hidden units at most: states of 4 batch entries lie in shared memory as bytes. `MOST` of kernels/recurrent_step.ptx.j2.
const INT8_HIDDEN: usize = 4096;

pub(super) fn floats(problem: &Problem) -> Result<(), &'static str> {
    match problem {
        Problem::Recurrent(p) if p.quantized.is_some() => Err("no quantised weights"),
        Problem::Recurrent(p) => sizes(p),
        _ => Err("not a recurrent layer"),
    }
}

pub(super) fn int8(problem: &Problem) -> Result<(), &'static str> {
    match problem {
        Problem::Recurrent(p) if p.quantized.is_none() || p.dtype != DType::F32 => Err("quantised weights and f32 only"),
        Problem::Recurrent(p) if !matches!(p.cell, Cell::Lstm { .. }) => Err("LSTM only"),
        Problem::Recurrent(p) if p.hidden_size > INT8_HIDDEN => Err("at most 4096 hidden units"),
        // The bound of exact sums of 8-bit products in s32.
        Problem::Recurrent(p) if p.input_size >= 33_000 => Err("sums of more than 33,000 products may overflow"),
        Problem::Recurrent(p) => sizes(p),
        _ => Err("not a recurrent layer"),
    }
}

fn sizes(p: &RecurrentProblem) -> Result<(), &'static str> {
    let gates = p.directions() * p.cell.gates() * p.hidden_size;
    match () {
        _ if !matches!(p.dtype, DType::F32 | DType::F16 | DType::BF16) => Err("of f32, f16 and bf16"),
        _ if p.directions() > 32 => Err("at most 32 directions"),
        _ if p.batch.div_ceil(4) > 65_535 || (p.seq_len * p.batch).div_ceil(64) > 65_535 => Err("too many tokens"),
        _ if p.seq_len * p.batch * gates.max(p.input_size) > ELEMENTS => Err("at most 2^31 - 1 elements"),
        _ if gates * p.hidden_size.max(p.input_size) > ELEMENTS => Err("at most 2^31 - 1 weights"),
        _ => Ok(()),
    }
}

/// The input's products at 40 % of the f32 rate, then for each step a launch that reads the weights once for 4 batch entries.
pub(super) fn cost_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Recurrent(p) = problem else { return f64::INFINITY };
    let rows = (p.directions() * p.cell.gates() * p.hidden_size) as f64;
    let tokens = (p.seq_len * p.batch) as f64;
    let products_us = 2.0 * rows * tokens * p.input_size as f64 / (info.peaks.f32_gflops.max(1.0) * 0.4 * 1e3);
    let bytes = rows * (p.hidden_size * p.quantized.unwrap_or(p.dtype).size_bytes()) as f64 * p.batch.div_ceil(4) as f64;
    let step_us = LAUNCH_US + 2.0 + bytes / (info.peaks.read_gbps.max(1.0) * 0.6 * 1e3);
    let launches = if p.cell == (Cell::Gru { linear_before_reset: false }) { 2.0 } else { 1.0 };
    5.0 * LAUNCH_US + products_us + p.seq_len as f64 * launches * step_us
}
