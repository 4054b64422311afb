//! Kernels of the attend family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::attend::{Attention, Rotary};
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
        cost_us: |p, info| cost(p, info, 50e3),
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx512-float-heads",
        device: DeviceKind::Cpu,
        family: Family::Attend,
        needs: Capabilities::AVX512.union(Capabilities::AVX2),
        proof: Proof::Run,
        accepts: float_heads,
        cost_us: |p, info| cost(p, info, 65e3),
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        name: "cpu-neon-float-heads",
        device: DeviceKind::Cpu,
        family: Family::Attend,
        needs: Capabilities::NEON,
        proof: Proof::Compiled,
        accepts: float_heads,
        cost_us: |p, info| cost(p, info, 20e3),
    },
];

/// Threads that a problem of this size is shared between.
fn threads(p: &Problem, info: &DeviceInfo) -> f64 {
    if p.flops() < 1e6 { 1.0 } else { info.threads as f64 }
}

/// Microseconds; `rate` is that of attention, in operations a microsecond. Rotations read and write more than they compute.
fn cost(p: &Problem, info: &DeviceInfo, rate: f64) -> f64 {
    match p {
        Problem::Attend(AttendProblem::Rotary(_)) => 0.5 + p.flops() / (3e3 * threads(p, info)),
        _ => 2.0 + p.flops() / (rate * threads(p, info)),
    }
}

fn float_heads(p: &Problem) -> Result<(), &'static str> {
    match p {
        Problem::Attend(AttendProblem::Attention(Attention { dtype, .. }) | AttendProblem::Rotary(Rotary { dtype, .. }))
            if *dtype == DType::F64 =>
        {
            Err("takes f32, f16 and bf16 only")
        }
        Problem::Attend(AttendProblem::Attention(a)) if a.v_head_size == 0 => Err("values without elements"),
        Problem::Attend(_) => Ok(()),
        _ => Err("another family's problem"),
    }
}
