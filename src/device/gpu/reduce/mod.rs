//! Reductions, softmax and normalisations: docs/cuda-rows.md.

mod fold;
mod rows;
pub(in crate::device::gpu) mod walk;

use super::call::{Call, GpuKernel};
use super::device::failed;
use super::launch::{Arg, Launch, Pointer};
use super::variant::Variant;
use crate::device::cpu::call::pack_nothing;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ReduceProblem;
use crate::graph::problem::reduce::{Fold, ReduceKind};
use crate::hardware::DeviceInfo;

pub(super) static KERNELS: &[GpuKernel] = &[
    rows("sm61-rows"),
    rows("any-rows"),
    rows("any-rows-i64"),
    rows("any-rows64"),
    quantisation("sm61-dynamic-quantize"),
    quantisation("any-dynamic-quantize"),
];

const fn rows(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes, launches }
}

const fn quantisation(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: |_, _| BLOCKS * 8, launches: dynamic_quantize }
}

/// Blocks that look for a tensor's range at most.
const BLOCKS: usize = 512;

fn problem(problem: &Problem) -> Result<&ReduceProblem> {
    match problem {
        Problem::Reduce(p) => Ok(p),
        _ => Err(failed("not a reduction")),
    }
}

fn scratch_bytes(problem: &Problem, _: &DeviceInfo) -> usize {
    let Problem::Reduce(p) = problem else { return 0 };
    match &p.kind {
        ReduceKind::Fold { fold: Fold::LogSumExp, .. } => 0,
        ReduceKind::Fold { groups, .. } => fold::fold_scratch_bytes(groups, p.x.dtype),
        ReduceKind::Normalize(norm) => rows::normalize_scratch_bytes(norm),
        ReduceKind::BatchNorm(norm) => rows::batch_scratch_bytes(norm),
        _ => 0,
    }
}

fn launches(call: &Call) -> Result<Vec<Launch>> {
    match problem(call.problem)?.kind {
        ReduceKind::Fold { fold: Fold::LogSumExp, ref groups } => rows::log_sum_exp(call, groups),
        ReduceKind::Fold { fold, ref groups } => fold::fold(call, fold, groups),
        ReduceKind::Arg { rows, max, last } => fold::extreme(call, rows, max, last),
        ReduceKind::Softmax { rows, kind } => rows::softmax(call, rows, kind),
        ReduceKind::LpNormalize { rows, p } => rows::lp_normalize(call, rows, p),
        ReduceKind::CumSum { rows, exclusive, reverse } => fold::running_sums(call, rows, exclusive, reverse),
        ReduceKind::Normalize(ref norm) => rows::normalize(call, norm),
        ReduceKind::Standardize { ref groups, epsilon } => rows::standardize(call, groups, epsilon),
        ReduceKind::BatchNorm(ref norm) => rows::batch_norm(call, norm),
        ReduceKind::QuantizedSoftmax { rows } => rows::quantized_softmax(call, rows),
        ReduceKind::DynamicQuantize => Err(failed("quantisation has its own kernel")),
    }
}

fn dynamic_quantize(call: &Call) -> Result<Vec<Launch>> {
    let n = call.input(0)?.shape.numel();
    let variants = ["dynamic_range", "dynamic_quantize"].map(Variant::named);
    let blocks = n.div_ceil(variants[0].threads as usize * 16).clamp(1, BLOCKS) as u32;
    let output = |i: usize| call.outputs.get(i).and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Output(i, 0));
    let mut args = vec![Arg::Pointer(Pointer::Input(0, 0)), Arg::U32(n as u32), Arg::Pointer(Pointer::Scratch(0))];
    let first = Launch::new(variants[0], [blocks, 1, 1], args.clone());
    args.push(Arg::U32(blocks));
    args.extend([0, 1, 2].map(|i| Arg::Pointer(output(i))));
    let all = n.div_ceil(variants[1].threads as usize * 16).max(1) as u32;
    Ok(vec![first, Launch::new(variants[1], [all, 1, 1], args)])
}
