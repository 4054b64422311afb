//! Kernels of the attend family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::{AttendProblem, Family};
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

pub(crate) static KERNELS: &[KernelDef] = &[
    KernelDef {
        name: "cpu-any-attend",
        device: DeviceKind::Cpu,
        family: Family::Attend,
        needs: Capabilities::empty(),
        proof: Proof::Run,
        accepts: |_| Ok(()),
        cost_us: |p, _| 5.0 + p.flops() / 500.0,
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx2-float-heads",
        device: DeviceKind::Cpu,
        family: Family::Attend,
        needs: Capabilities::AVX2,
        proof: Proof::Run,
        accepts: float_heads,
        cost_us: |p, info| 2.0 + p.flops() / (50e3 * threads(p, info)),
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx512-float-heads",
        device: DeviceKind::Cpu,
        family: Family::Attend,
        needs: Capabilities::AVX512.union(Capabilities::AVX2),
        proof: Proof::Run,
        accepts: float_heads,
        cost_us: |p, info| 2.0 + p.flops() / (65e3 * threads(p, info)),
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        name: "cpu-neon-float-heads",
        device: DeviceKind::Cpu,
        family: Family::Attend,
        needs: Capabilities::NEON,
        proof: Proof::Run,
        accepts: float_heads,
        cost_us: |p, info| 2.0 + p.flops() / (20e3 * threads(p, info)),
    },
];

/// Threads that a problem of this size is shared between.
fn threads(p: &Problem, info: &DeviceInfo) -> f64 {
    if p.flops() < 1e6 { 1.0 } else { info.threads as f64 }
}

fn float_heads(p: &Problem) -> Result<(), &'static str> {
    match p {
        Problem::Attend(AttendProblem::Attention(a)) if a.dtype == DType::F64 => Err("takes f32, f16 and bf16 only"),
        Problem::Attend(AttendProblem::Attention(a)) if a.past_len > 0 => Err("no past keys"),
        Problem::Attend(AttendProblem::Attention(_)) => Ok(()),
        _ => Err("attention only"),
    }
}
