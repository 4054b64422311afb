//! Kernels of the conv family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::{ConvProblem, Family};
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

const fn row(
    name: &'static str,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    KernelDef { name, device: DeviceKind::Cpu, family: Family::Conv, needs, proof: Proof::Run, accepts, cost_us }
}

pub(super) static KERNELS: &[KernelDef] = &[
    row("cpu-any-conv", Capabilities::empty(), |_| Ok(()), |p, info| 10.0 + share(p, info, 0.002)),
    row("cpu-portable-conv-4x16", Capabilities::empty(), dense, |p, info| 3.0 + share(p, info, 0.1 * filled(p, 4))),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-conv-6x16", Capabilities::AVX2, dense, |p, info| 3.0 + share(p, info, 0.45 * filled(p, 6))),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-conv-14x32", Capabilities::AVX512, dense, |p, info| 3.0 + share(p, info, 0.9 * filled(p, 14))),
    #[cfg(target_arch = "aarch64")]
    row("cpu-neon-conv-6x16", Capabilities::NEON, dense, |p, info| 3.0 + share(p, info, 0.45 * filled(p, 6))),
];

/// Time at a share of the device's peak.
fn share(problem: &Problem, info: &DeviceInfo, share: f64) -> f64 {
    problem.flops() / (info.peaks.f32_gflops.max(1.0) * share * 1e3)
}

/// The part of the peak that row panels as high as the output channels give: each step of a panel reads two vectors of pixels.
fn filled(problem: &Problem, rows: usize) -> f64 {
    let Problem::Conv(p) = problem else { return 1.0 };
    let own = (p.m / p.groups).max(1) * if p.transposed { p.kernel.iter().product() } else { 1 };
    let height = own as f64 / own.div_ceil(rows) as f64;
    height / (height + 2.0)
}

fn conv(problem: &Problem) -> Result<&ConvProblem, &'static str> {
    match problem {
        Problem::Conv(p) => Ok(p),
        _ => Err("another family"),
    }
}

/// f32, or exact 8-bit integers; one or two spatial axes.
fn dense(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    let byte = |d: DType| matches!(d, DType::U8 | DType::I8);
    let types = match p.quant {
        None => p.x == DType::F32 && p.w == DType::F32 && p.y == DType::F32,
        Some(_) => byte(p.x) && byte(p.w) && (p.y == DType::I32 || byte(p.y)),
    };
    if !types {
        return Err("takes f32, or 8-bit integers");
    }
    if p.input.len() > 2 {
        return Err("takes one or two spatial axes");
    }
    if p.transposed && p.quant.is_some() {
        return Err("takes no transposed integer convolution");
    }
    Ok(())
}
