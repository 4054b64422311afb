//! Kernels of the reduce family.

use super::cost::{LAUNCH_US, moved_us, threads};
use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::reduce::{Fold, ReduceKind, Rows, SoftmaxKind};
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

pub(crate) static KERNELS: &[KernelDef] = &[
    KernelDef {
        name: "cpu-any-reduce",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::empty(),
        proof: Proof::Run,
        accepts: |_| Ok(()),
        cost_us: |p, _| 5.0 + p.flops() / 100.0,
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx2-float-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::AVX2,
        proof: Proof::Run,
        accepts: float_rows,
        cost_us: |p, info| rows_us(p, info, 15e3),
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx512-float-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::AVX512.union(Capabilities::AVX2),
        proof: Proof::Run,
        accepts: float_rows,
        cost_us: |p, info| rows_us(p, info, 25e3),
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        name: "cpu-neon-float-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::NEON,
        proof: Proof::Run,
        accepts: float_rows,
        cost_us: |p, info| rows_us(p, info, 8e3),
    },
    KernelDef {
        name: "cpu-portable-int-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::empty(),
        proof: Proof::Run,
        accepts: int_rows,
        cost_us: |p, info| rows_us(p, info, 1.5e3),
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx2-int-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::AVX2,
        proof: Proof::Run,
        accepts: int_rows,
        cost_us: |p, info| rows_us(p, info, 4e3),
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx512-int-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::AVX512.union(Capabilities::AVX2),
        proof: Proof::Run,
        accepts: int_rows,
        cost_us: |p, info| rows_us(p, info, 6e3),
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        name: "cpu-neon-int-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::NEON,
        proof: Proof::Compiled,
        accepts: int_rows,
        cost_us: |p, info| rows_us(p, info, 2e3),
    },
];

/// Operations at `rate` a microsecond and thread, or the bytes moved, whichever takes longer.
fn rows_us(problem: &Problem, info: &DeviceInfo, rate: f64) -> f64 {
    let Problem::Reduce(p) = problem else { return f64::INFINITY };
    let read = (p.x.shape.numel() * p.x.dtype.size_bytes()) as f64;
    let bytes = if matches!(p.kind, ReduceKind::Fold { .. }) { read } else { 2.0 * read };
    LAUNCH_US + (p.flops() / rate).max(moved_us(info, bytes)) / threads(info, p.flops(), 2e5)
}

fn float_rows(p: &Problem) -> Result<(), &'static str> {
    let Problem::Reduce(p) = p else { return Err("another family's problem") };
    if !matches!(p.x.dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err("takes f32, f16 and bf16 only");
    }
    match &p.kind {
        ReduceKind::Fold { fold: Fold::Prod | Fold::LogSumExp, .. } => Err("no products and no log-sum-exp"),
        ReduceKind::Fold { groups, .. } if groups.rows().is_none() => Err("the reduced axes are not neighbours"),
        ReduceKind::Softmax { kind: SoftmaxKind::Hardmax, .. } => Err("no hardmax"),
        ReduceKind::Normalize(n) if n.skip => Err("no skip connection"),
        ReduceKind::BatchNorm(n) if n.training => Err("no training"),
        ReduceKind::Fold { .. }
        | ReduceKind::Softmax { .. }
        | ReduceKind::Normalize(_)
        | ReduceKind::BatchNorm(_)
        | ReduceKind::CumSum { .. }
        | ReduceKind::DynamicQuantize => Ok(()),
        ReduceKind::Arg { rows, .. } => elements(*rows),
        _ => Err("another kind of reduction"),
    }
}

fn int_rows(p: &Problem) -> Result<(), &'static str> {
    let Problem::Reduce(p) = p else { return Err("another family's problem") };
    match &p.kind {
        _ if p.x.dtype.is_float() => Err("takes integers only"),
        ReduceKind::Fold { fold: Fold::L2 | Fold::LogSum | Fold::LogSumExp, .. } => Err("no roots and no logarithms"),
        ReduceKind::Fold { groups, .. } => elements(groups.rows().ok_or("the reduced axes are not neighbours")?),
        ReduceKind::Arg { rows, .. } => elements(*rows),
        ReduceKind::CumSum { .. } => Ok(()),
        _ => Err("another kind of reduction"),
    }
}

fn elements(rows: Rows) -> Result<(), &'static str> {
    if rows.len == 0 { Err("rows without elements") } else { Ok(()) }
}
