//! Kernels of the reduce family.

use super::row::{ELEMENTS, LAUNCH_US, launch_us, row};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::reduce::{Fold, Groups, Normalize, ReduceKind};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("cuda-sm61-rows", Family::Reduce, Capabilities::SM_61, rows, cost_us),
    row("cuda-sm61-dynamic-quantize", Family::Reduce, Capabilities::SM_61, dynamic_quantize, cost_us),
];

pub(super) fn rows(problem: &Problem) -> Result<(), &'static str> {
    let Problem::Reduce(p) = problem else { return Err("not a reduction") };
    let (dtype, kind) = (p.x.dtype, &p.kind);
    if p.x.shape.numel() > ELEMENTS {
        return Err("at most 2^31 - 1 elements");
    }
    match kind {
        ReduceKind::DynamicQuantize => Err("quantisation has its own kernel"),
        ReduceKind::Fold { groups, .. } | ReduceKind::Standardize { groups, .. } if !walkable(groups) => {
            Err("at most 4 runs of reduced axes, and 4 of kept ones")
        }
        ReduceKind::Fold { fold: Fold::Mean, .. } if matches!(dtype, DType::I64 | DType::U64) => {
            Err("sums of 64-bit integers may overflow before they are divided")
        }
        ReduceKind::Fold { .. } | ReduceKind::Arg { .. } | ReduceKind::CumSum { .. } | ReduceKind::QuantizedSoftmax { .. } => {
            Ok(())
        }
        _ if !dtype.is_float() => Err("of floats only"),
        ReduceKind::Normalize(n) => normalize(n),
        ReduceKind::LpNormalize { p, .. } if !(1..=2).contains(p) => Err("the 1-norm and the 2-norm only"),
        _ => Ok(()),
    }
}

/// Kernels find an element by at most 4 coordinates.
fn walkable(groups: &Groups) -> bool {
    [false, true].iter().all(|mark| groups.0.iter().filter(|g| g.1 == *mark && g.0 != 1).count() <= 4)
}

fn normalize(n: &Normalize) -> Result<(), &'static str> {
    let a = &n.affine;
    let factors = n.scale.is_some() || n.bias.is_some();
    match () {
        _ if factors && (a.period == 0 || !n.rows.is_multiple_of(a.period)) => Err("factors that do not repeat evenly"),
        _ if factors && (a.per_row * a.inner != n.len || a.shape.numel() != a.period * a.per_row) => Err("factors of other rows"),
        _ if a.shape.rank() > 4 => Err("factors of more than 4 axes"),
        _ => Ok(()),
    }
}

pub(super) fn dynamic_quantize(problem: &Problem) -> Result<(), &'static str> {
    match problem {
        Problem::Reduce(p) if p.kind != ReduceKind::DynamicQuantize => Err("another kind of reduction"),
        Problem::Reduce(p) if p.x.dtype != DType::F32 => Err("of f32 only"),
        Problem::Reduce(p) if p.x.shape.numel() > ELEMENTS => Err("at most 2^31 - 1 elements"),
        Problem::Reduce(_) => Ok(()),
        _ => Err("not a reduction"),
    }
}

/// Bytes read and written, at the share of the rate that rows which lie side by side reach, or others.
pub(super) fn cost_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Reduce(p) = problem else { return f64::INFINITY };
    let read = (p.x.shape.numel() * p.x.dtype.size_bytes()) as f64;
    let (bytes, share, launches) = match &p.kind {
        ReduceKind::Fold { groups, .. } => (read, if groups.rows().is_some() { 0.8 } else { 0.4 }, 1.0),
        ReduceKind::Arg { .. } => (read, 0.6, 1.0),
        ReduceKind::CumSum { .. } => (2.0 * read, 0.3, 1.0),
        ReduceKind::DynamicQuantize => (2.25 * read, 0.8, 2.0),
        ReduceKind::Normalize(n) => ((2.0 + 2.0 * f64::from(u8::from(n.skip))) * read, 0.75, 1.0),
        ReduceKind::Softmax { rows, .. } => (2.0 * read, if rows.inner == 1 { 0.75 } else { 0.4 }, 1.0),
        _ => (2.0 * read, 0.4, 1.0),
    };
    // f64 and integers go through kernels of 64-bit numbers, whose rate is a small part of that of f32 on most devices.
    let wide = !matches!(p.x.dtype, DType::F32 | DType::F16 | DType::BF16);
    let compute_us = p.flops() * if wide { 64.0 } else { 4.0 } / info.peaks.f32_gflops.max(1.0) / 1e3;
    (launches - 1.0) * LAUNCH_US + launch_us(info, bytes, share, compute_us)
}
