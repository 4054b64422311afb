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
    row("cpu-portable-conv-4x16", Capabilities::empty(), float, |p, info| 3.0 + share(p, info, 0.1 * filled(p, 4))),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-conv-6x16", Capabilities::AVX2, float, |p, info| 3.0 + share(p, info, 0.45 * filled(p, 6))),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-conv-14x32", Capabilities::AVX512, float, |p, info| 3.0 + share(p, info, 0.9 * filled(p, 14))),
    #[cfg(target_arch = "aarch64")]
    row("cpu-neon-conv-6x16", Capabilities::NEON, float, |p, info| 3.0 + share(p, info, 0.45 * filled(p, 6))),
    row("cpu-portable-conv-int8-2x16", Capabilities::empty(), int8, |p, info| bytes(p, info, 0.1, 2, 1)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-conv-int8-6x16", Capabilities::AVX2, int8, |p, info| bytes(p, info, 1.0, 6, 2)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-conv-int8-12x32", Capabilities::AVX512, int8, |p, info| bytes(p, info, 1.1, 12, 2)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512vnni-conv-int8-14x32", Capabilities::AVX512_VNNI, int8, |p, info| bytes(p, info, 3.0, 14, 4)),
    // Where its registers would stay empty it runs AVX-512 VNNI's tiles.
    #[cfg(target_arch = "x86_64")]
    row("cpu-amx-conv-int8-32x32", Capabilities::AMX_INT8.union(Capabilities::AVX512_VNNI), int8, |p, info| {
        bytes(p, info, 6.0, 14, 4)
    }),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avxvnni-conv-int8-6x16", Capabilities::AVX2.union(Capabilities::AVX_VNNI), int8, |p, info| {
        bytes(p, info, 2.5, 6, 4)
    }),
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        proof: Proof::Compiled,
        ..row("cpu-neon-conv-int8-6x16", Capabilities::NEON, int8, |p, info| bytes(p, info, 0.45, 6, 1))
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        proof: Proof::Compiled,
        ..row("cpu-dotprod-conv-int8-6x16", Capabilities::DOTPROD, int8, |p, info| bytes(p, info, 1.7, 6, 4))
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        proof: Proof::Compiled,
        ..row("cpu-i8mm-conv-int8-6x16", Capabilities::I8MM, int8, |p, info| bytes(p, info, 2.8, 6, 8))
    },
    row("cpu-portable-few-4x16", Capabilities::empty(), few, |p, info| 2.0 + share(p, info, 0.1 * full(p, 4))),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-few-6x16", Capabilities::AVX2, few, |p, info| 2.0 + share(p, info, 0.45 * full(p, 6))),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-few-14x32", Capabilities::AVX512, few, |p, info| 2.0 + share(p, info, 0.9 * full(p, 14))),
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        proof: Proof::Compiled,
        ..row("cpu-neon-few-6x16", Capabilities::NEON, few, |p, info| 2.0 + share(p, info, 0.45 * full(p, 6)))
    },
];

/// Time at a share of the device's peak.
fn share(problem: &Problem, info: &DeviceInfo, share: f64) -> f64 {
    problem.flops() / (info.peaks.f32_gflops.max(1.0) * share * 1e3)
}

/// The part of the peak that row panels as high as the output channels give: each step of a panel reads two vectors of pixels.
fn filled(problem: &Problem, rows: usize) -> f64 {
    let Problem::Conv(p) = problem else { return 1.0 };
    let own = (p.m / p.groups).max(1) * if p.transposed { p.window.taps() } else { 1 };
    // Few pixels leave columns of a tile empty.
    let columns = p.window.pixels().clamp(1, 32) as f64 / 32.0;
    columns * of_height(own, rows)
}

/// The same where pixels are the rows.
fn full(problem: &Problem, rows: usize) -> f64 {
    let Problem::Conv(p) = problem else { return 1.0 };
    of_height(p.n * p.window.pixels(), rows)
}

fn of_height(own: usize, rows: usize) -> f64 {
    let height = own.max(1) as f64 / own.div_ceil(rows).max(1) as f64;
    height / (height + 2.0)
}

/// Few output pixels, which leave most columns of a tile empty.
fn few(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    float(problem)?;
    if p.transposed || p.groups != 1 || p.window.pixels() > 8 {
        return Err("takes one group with at most 8 output pixels");
    }
    Ok(())
}

/// Of exact 8-bit integers: instructions multiply `group` channels, or taps in a row, at once, and some of them may be padding.
fn bytes(problem: &Problem, info: &DeviceInfo, share_full: f64, rows: usize, group: usize) -> f64 {
    let Problem::Conv(p) = problem else { return f64::INFINITY };
    let (channels, taps) = (p.c / p.groups.max(1), p.window.kernel.last().copied().unwrap_or(1));
    let groups = (channels.div_ceil(group) * taps).min(channels * taps.div_ceil(group));
    let useful = (channels * taps).max(1) as f64 / (groups * group).max(1) as f64;
    3.0 + share(problem, info, share_full * useful * filled(problem, rows))
}

fn conv(problem: &Problem) -> Result<&ConvProblem, &'static str> {
    match problem {
        Problem::Conv(p) => Ok(p),
        _ => Err("another family"),
    }
}

/// f32; one or two spatial axes.
fn float(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    if p.quant.is_some() || [p.x, p.w, p.y] != [DType::F32; 3] {
        return Err("takes f32");
    }
    if p.window.rank() > 2 { Err("takes one or two spatial axes") } else { Ok(()) }
}

/// Exact 8-bit integers; one or two spatial axes.
fn int8(problem: &Problem) -> Result<(), &'static str> {
    let p = conv(problem)?;
    let byte = |d: DType| matches!(d, DType::U8 | DType::I8);
    if p.quant.is_none() || !byte(p.x) || !byte(p.w) || !(p.y == DType::I32 || byte(p.y)) {
        return Err("takes 8-bit integers");
    }
    if p.transposed {
        return Err("takes no transposed integer convolution");
    }
    if p.window.rank() > 2 { Err("takes one or two spatial axes") } else { Ok(()) }
}
