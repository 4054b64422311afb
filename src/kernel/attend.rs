//! Kernels of the attend family.

use super::cost::{LAUNCH_US, threads};
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

/// Microseconds; `rate` is that of attention, in operations a microsecond and thread, besides a microsecond to arrange each head.
/// Rotations read and write more than they compute.
fn cost(problem: &Problem, info: &DeviceInfo, rate: f64) -> f64 {
    let Problem::Attend(p) = problem else { return f64::INFINITY };
    let work_us = match p {
        AttendProblem::Rotary(_) => p.flops() / 3e3,
        AttendProblem::Attention(a) => p.flops() / rate + (a.batch * a.q_heads) as f64,
    };
    LAUNCH_US + work_us / threads(info, p.flops(), 1e6)
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
