//! Kernels of the pool family.

use super::cost::{LAUNCH_US, moved_us, threads};
use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::pool::Pooling;
use crate::graph::problem::{Family, Window};
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

const fn row(
    name: &'static str,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    KernelDef { name, device: DeviceKind::Cpu, family: Family::Pool, needs, proof: Proof::Run, accepts, cost_us }
}

pub(crate) static KERNELS: &[KernelDef] = &[
    row("cpu-any-pool", Capabilities::empty(), |_| Ok(()), reference_us),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-pool", Capabilities::AVX2, bands, |p, info| bands_us(p, info, 3e3)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-pool", Capabilities::AVX512.union(Capabilities::AVX2), bands, |p, info| bands_us(p, info, 5e3)),
    #[cfg(target_arch = "aarch64")]
    KernelDef { proof: Proof::Compiled, ..row("cpu-neon-pool", Capabilities::NEON, bands, |p, info| bands_us(p, info, 2e3)) },
];

/// At so many taps and windows a microsecond and thread.
fn reference_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Pool(p) = problem else { return f64::INFINITY };
    let windows = (p.planes * p.window.pixels()) as f64;
    LAUNCH_US + (p.flops() / 250.0 + windows / 50.0) / threads(info, p.flops(), 1e5)
}

/// Elements are joined down the rows, moved when the columns have a stride, and joined along the columns: so many a microsecond
/// and thread.
fn bands_us(problem: &Problem, info: &DeviceInfo, rate: f64) -> f64 {
    let Problem::Pool(p) = problem else { return f64::INFINITY };
    let (w, last) = (&p.window, p.window.rank() - 1);
    let product = |v: &[usize]| v.iter().product::<usize>();
    let (input, output) = (p.planes * w.plane(), p.planes * w.pixels());
    let lines = p.planes * product(&w.output[..last]);
    let down = lines * w.input[last] * (product(&w.kernel[..last]) + 1 + usize::from(w.strides[last] > 1));
    let along = output * (w.kernel[last] + 1);
    // A plane that is one window is summed as it is read.
    let work = if w.pixels() == 1 { input } else { down + along } as f64;
    let bytes = ((input + output) * p.dtype.size_bytes()) as f64;
    let threads = threads(info, (input + output) as f64, 32.0 * 1024.0);
    LAUNCH_US + (work / rate).max(moved_us(info, bytes)) / threads
}

/// Maxima and averages whose windows stay near the image.
fn bands(problem: &Problem) -> Result<(), &'static str> {
    let Problem::Pool(p) = problem else { return Err("another family's problem") };
    if !matches!(p.dtype, DType::F32 | DType::F16 | DType::BF16 | DType::U8 | DType::I8) {
        return Err("takes f32, f16, bf16, u8 and i8 only");
    }
    match p.pooling {
        Pooling::Max { indices: true, .. } => Err("no indices"),
        Pooling::Lp { .. } => Err("no norms"),
        _ if p.window.input.contains(&0) => Err("the image is empty"),
        _ if p.window.pads.iter().any(|&v| v < 0) || wide(&p.window) => Err("the windows reach far beyond the image"),
        _ => Ok(()),
    }
}

/// Whether rows with their padding would be several times as long as without.
fn wide(w: &Window) -> bool {
    let last = w.rank() - 1;
    let steps = w.output[last].saturating_sub(1).saturating_mul(w.strides[last]);
    let reach = w.kernel[last].saturating_sub(1).saturating_mul(w.dilations[last]);
    steps.saturating_add(reach) > 4 * (w.input[last] + 16)
}
