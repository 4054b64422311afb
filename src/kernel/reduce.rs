//! Kernels of the reduce family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::reduce::{Fold, ReduceKind, SoftmaxKind};
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
        cost_us: |p, info| 0.5 + p.flops() / (4000.0 * threads(p, info)),
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx512-float-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::AVX512.union(Capabilities::AVX2),
        proof: Proof::Run,
        accepts: float_rows,
        cost_us: |p, info| 0.5 + p.flops() / (6000.0 * threads(p, info)),
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        name: "cpu-neon-float-rows",
        device: DeviceKind::Cpu,
        family: Family::Reduce,
        needs: Capabilities::NEON,
        proof: Proof::Run,
        accepts: float_rows,
        cost_us: |p, info| 0.5 + p.flops() / (2000.0 * threads(p, info)),
    },
];

/// Threads that a problem of this size is shared between.
fn threads(p: &Problem, info: &DeviceInfo) -> f64 {
    if p.flops() < 2e5 { 1.0 } else { info.threads as f64 }
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
        | ReduceKind::DynamicQuantize => Ok(()),
        _ => Err("another kind of reduction"),
    }
}
