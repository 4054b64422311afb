//! Kernels of the reduce family.

use super::row::{is_wide, row, row_i64, row64};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::reduce::{Fold, ReduceKind, SoftmaxKind};
use crate::kernel::KernelDef;
use crate::kernel::gpu::reduce;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-any-rows", Family::Reduce, |p| rows(p, Numbers::Narrow), reduce::cost_us),
    row_i64("wgpu-any-rows-i64", Family::Reduce, |p| rows(p, Numbers::Integers), reduce::cost_us),
    row64("wgpu-any-rows64", Family::Reduce, |p| rows(p, Numbers::Wide), reduce::cost_us),
    row("wgpu-any-dynamic-quantize", Family::Reduce, reduce::dynamic_quantize, reduce::cost_us),
];

/// What a shader computes in.
#[derive(PartialEq, Eq)]
enum Numbers {
    /// 32 bits.
    Narrow,
    /// Integers of 64 bits.
    Integers,
    /// f64, and integers of 64 bits.
    Wide,
}

fn rows(problem: &Problem, numbers: Numbers) -> Result<(), &'static str> {
    reduce::rows(problem)?;
    let Problem::Reduce(p) = problem else { return Err("not a reduction") };
    let is_double = |d: &DType| *d == DType::F64;
    // Folds of integers that are defined by floats compute in f64, as src/device/gpu/reduce does.
    let folds_floats = matches!(p.kind, ReduceKind::Fold { fold: Fold::L2 | Fold::LogSum | Fold::LogSumExp, .. });
    let wide = match &p.kind {
        ReduceKind::QuantizedSoftmax { .. } | ReduceKind::Softmax { kind: SoftmaxKind::Hardmax, .. } => true,
        ReduceKind::CumSum { .. } => p.x.dtype.is_float(),
        _ => folds_floats && !p.x.dtype.is_float(),
    };
    // Places are stored as they are.
    let is_place = matches!(p.kind, ReduceKind::Arg { .. });
    let needs = match () {
        _ if wide || is_double(&p.x.dtype) || p.out.iter().any(is_double) => Numbers::Wide,
        _ if !p.x.dtype.is_float() || (!is_place && p.out.iter().copied().any(is_wide)) => Numbers::Integers,
        _ => Numbers::Narrow,
    };
    if needs == numbers { Ok(()) } else { Err("computed in numbers of another width") }
}
