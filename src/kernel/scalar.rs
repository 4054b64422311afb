//! Kernels of the scalar family.

use super::{KernelDef, Proof};
use crate::graph::Problem;
use crate::graph::problem::Family;
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

fn scalar_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Scalar(p) = problem else { return f64::INFINITY };
    let bytes: usize = p.operands.iter().chain([&p.out]).map(|t| t.shape.numel() * t.dtype.size_bytes()).sum();
    // A step takes about as long as a fused multiply-add on data in the first cache.
    let compute = p.flops() * 4.0 / info.peaks.f32_gflops.max(1.0) / 1e3;
    1.0 + compute.max(bytes as f64 / info.peaks.read_gbps.max(1.0) / 1e3)
}
