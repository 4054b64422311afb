//! Kernels of the gemm family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

pub(super) static KERNELS: &[KernelDef] = &[
    row("cpu-any-gemm-reference", Capabilities::empty(), any, |p, d| cost(p, d, 0.3)),
    row("cpu-portable-float-4x16", Capabilities::empty(), real, |p, d| cost(p, d, 5.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-float-6x16", Capabilities::AVX2, real, |p, d| cost(p, d, 80.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-float-14x32", Capabilities::AVX512, real, |p, d| cost(p, d, 90.0)),
    row("cpu-portable-int8-2x16", Capabilities::empty(), int8, |p, d| cost(p, d, 5.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-int8-6x16", Capabilities::AVX2, int8, |p, d| cost(p, d, 150.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-int8-12x32", Capabilities::AVX512, int8, |p, d| cost(p, d, 160.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512vnni-int8-14x32", Capabilities::AVX512_VNNI, int8, |p, d| cost(p, d, 350.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avxvnni-int8-6x16", Capabilities::AVX2.union(Capabilities::AVX_VNNI), int8, |p, d| cost(p, d, 300.0)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-amx-int8-32x32", Capabilities::AMX_INT8.union(Capabilities::AVX512_VNNI), int8, |p, d| cost(p, d, matrix_gops(p))),
    #[cfg(target_arch = "aarch64")]
    row("cpu-neon-float-6x16", Capabilities::NEON, real, |p, d| cost(p, d, 40.0)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-neon-int8-6x16", Capabilities::NEON, int8, |p, d| cost(p, d, 40.0)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-dotprod-int8-6x16", Capabilities::DOTPROD, int8, |p, d| cost(p, d, 150.0)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-i8mm-int8-6x16", Capabilities::I8MM, int8, |p, d| cost(p, d, 250.0)),
];

const fn row(
    name: &'static str,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    KernelDef { name, device: DeviceKind::Cpu, family: Family::Gemm, needs, proof: Proof::Run, accepts, cost_us }
}

/// Microseconds at `gops` giga-operations a second and thread, or of reading B, whichever is longer.
fn cost(problem: &Problem, info: &DeviceInfo, gops: f64) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    let threads = if p.flops() < 1.5e6 { 1.0 } else { info.threads.max(1) as f64 };
    let bytes = (p.k * p.n * p.b_as.size_bytes()) as f64;
    // One microsecond to start.
    1.0 + (p.flops() / (gops * threads * 1e3)).max(bytes / (info.peaks.read_gbps.max(1.0) * 1e3)) + p.flops() / (gops * 1e5)
}

/// Of few rows as AVX-512 VNNI, and before it: so all numbers of rows share what is packed.
#[cfg(target_arch = "x86_64")]
fn matrix_gops(problem: &Problem) -> f64 {
    if matches!(problem, Problem::Gemm(p) if p.m >= 4) { 1800.0 } else { 351.0 }
}

fn gemm(problem: &Problem) -> Result<&GemmProblem, &'static str> {
    match problem {
        Problem::Gemm(p) => Ok(p),
        _ => Err("not a matrix product"),
    }
}

fn any(problem: &Problem) -> Result<(), &'static str> {
    gemm(problem).map(|_| ())
}

/// B's matrices, one after the other, can be packed and found again.
fn packable(p: &GemmProblem) -> Result<(), &'static str> {
    let size = (p.k * p.n).max(1);
    let dense = (p.b.row == p.n && p.b.col == 1) || (p.b.col == p.k && p.b.row == 1) || p.b.batch.iter().all(|&s| s == 0);
    if p.contraction.is_some() {
        return Err("sums that are no matrix product");
    }
    if !dense || p.b.batch.iter().any(|s| s % size != 0) || !dense_batch(p) {
        return Err("B's matrices do not lie one after the other");
    }
    Ok(())
}

/// Whether B's batch axes that are not broadcast are numbered from 0 in memory without gaps.
fn dense_batch(p: &GemmProblem) -> bool {
    let mut want: usize = p.k * p.n;
    p.batch.iter().zip(&p.b.batch).rev().all(|(&dim, &step)| {
        let ok = step == 0 || step == want;
        want *= if step == 0 { 1 } else { dim };
        ok
    })
}

fn real(problem: &Problem) -> Result<(), &'static str> {
    let p = gemm(problem)?;
    let float = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    let b = float(p.b.dtype) || (p.b.dtype == DType::I8 && p.b_scale.is_some());
    if p.quant.is_some() || !float(p.a.dtype) || !b || !float(p.out) {
        return Err("f32, f16 or bf16 only, and B of i8 with scales");
    }
    packable(p)
}

fn int8(problem: &Problem) -> Result<(), &'static str> {
    let p = gemm(problem)?;
    if p.quant.is_none() || p.pick.is_some() {
        return Err("quantised operands only, and no stacks of them");
    }
    packable(p)
}
