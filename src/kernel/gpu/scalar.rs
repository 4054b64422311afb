//! Kernels of the scalar family.

use super::row::{ELEMENTS, launch_us, row};
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] =
    &[row("cuda-any-scalar", Family::Scalar, Capabilities::SM_61, accepts, cost_us)];

pub(super) fn accepts(problem: &Problem) -> Result<(), &'static str> {
    match problem {
        Problem::Scalar(p) if p.out.shape.numel() > ELEMENTS => Err("at most 2^31 - 1 elements"),
        Problem::Scalar(p) if p.operands.len() > 8 => Err("at most 8 operands"),
        Problem::Scalar(_) => Ok(()),
        _ => Err("not elementwise work"),
    }
}

pub(super) fn cost_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Scalar(p) = problem else { return f64::INFINITY };
    let bytes: usize = p.operands.iter().chain([&p.out]).map(|t| t.shape.numel() * t.dtype.size_bytes()).sum();
    // A step takes a few instructions.
    launch_us(info, bytes as f64, 0.85, p.flops() * 4.0 / info.peaks.f32_gflops.max(1.0) / 1e3)
}
