//! Grouped products, of which each item says while running which matrix of a stack it takes: what the kernels take, and what they cost.

use super::gemm::{moved_bytes, product};
use super::row::{ELEMENTS, launch_us, row};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::gemm::{GemmProblem, Matrix};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

/// Rows of a block at most.
pub const ROWS: usize = 8;
/// Threads of a block.
const THREADS: usize = 256;

pub(in crate::kernel) static KERNELS: &[KernelDef] =
    &[row("cuda-sm61-float-picked", Family::Gemm, Capabilities::SM_61, picked, picked_us)];

/// Columns of a block of a grouped product, a power of two: as few as leave each lane of K about eight terms. It says in which order
/// K is added up, and must depend on nothing that varies from batch to batch.
pub fn width(p: &GemmProblem) -> usize {
    let lanes = (p.k / 8).clamp(1, 32);
    THREADS / (1 << lanes.ilog2())
}

/// Blocks of few columns, each with all of K.
pub(super) fn picked_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    let blocks = p.n.div_ceil(width(p)) * p.m.div_ceil(ROWS) * p.batch.numel();
    let busy = (blocks as f64 / info.cores.max(1) as f64).clamp(0.05, 1.0);
    launch_us(info, moved_bytes(p), 0.7 * busy, p.flops() / (info.peaks.f32_gflops * 0.2 * busy).max(1e-3) / 1e3)
}

/// A matrix of f32 for each item by one out of a stack: A's rows and all others without gaps.
pub(super) fn picked(problem: &Problem) -> Result<(), &'static str> {
    let p = product(problem)?;
    let stack = p.pick.as_ref().ok_or("stacks of matrices only")?;
    let float = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    let dense = |m: &Matrix| (m.row, m.col, &m.batch[..]) == (p.n, 1, &[p.m * p.n][..]);
    let plain = p.quant.is_none() && p.top.is_none() && p.contraction.is_none() && p.b_scale.is_none();
    match () {
        _ if !plain || p.a.dtype != DType::F32 || !float(p.b.dtype) || p.b_as != p.b.dtype || !float(p.out) => {
            Err("f32 by floats only")
        }
        _ if p.batch.rank() != 1 || p.a.col != 1 || (p.b.row, p.b.col) != (p.n, 1) || !p.c.as_ref().is_none_or(dense) => {
            Err("rows without gaps only")
        }
        _ if p.batch[0] > 65535 || p.m.div_ceil(ROWS) > 65535 => Err("at most 65535 items"),
        _ if stack.count.saturating_mul(p.k * p.n) > ELEMENTS => Err("at most 2^31 - 1 elements"),
        _ => Ok(()),
    }
}
