//! Kernels of the scalar family.

use super::{KernelDef, Proof};
use crate::graph::problem::Family;
use crate::graph::{Problem, Type};
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

pub(super) static KERNELS: &[KernelDef] = &[KernelDef {
    name: "cpu-any-scalar",
    device: DeviceKind::Cpu,
    family: Family::Scalar,
    needs: Capabilities::empty(),
    proof: Proof::Run,
    accepts: |_| Ok(()),
    cost_us: scalar_us,
}];

/// Whether `kernel` may write its output over input `input`, an operand of the output's shape and element size: each element is read before
/// it is written, and by the task or thread that writes it. The CPU's kernel copies a block of the operand before it computes; CUDA's
/// load what they store over as data that changes. Shaders may not bind a range twice in a launch that writes it.
pub fn in_place(kernel: &KernelDef, problem: &Problem, input: usize) -> bool {
    let Problem::Scalar(p) = problem else { return false };
    let same = |t: &Type| t.shape == p.out.shape && t.dtype.size_bytes() == p.out.dtype.size_bytes();
    let may = matches!(kernel.device, DeviceKind::Cpu | DeviceKind::Cuda) && kernel.family == Family::Scalar;
    may && p.operands.get(input).is_some_and(same)
}

fn scalar_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Scalar(p) = problem else { return f64::INFINITY };
    let bytes: usize = p.operands.iter().chain([&p.out]).map(|t| t.shape.numel() * t.dtype.size_bytes()).sum();
    // A step takes about as long as a fused multiply-add on data in the first cache.
    let compute = p.flops() * 4.0 / info.peaks.f32_gflops.max(1.0) / 1e3;
    1.0 + compute.max(bytes as f64 / info.peaks.read_gbps.max(1.0) / 1e3)
}
