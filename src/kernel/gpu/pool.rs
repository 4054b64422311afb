//! Kernels of the pool family.

use super::row::{ELEMENTS, launch_us, row};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::pool::Pooling;
use crate::graph::problem::{Family, PoolProblem};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("cuda-f32-pool", Family::Pool, Capabilities::SM_61, narrow, |p, info| windows_us(p, info, 1.0)),
    row("cuda-any-pool", Family::Pool, Capabilities::SM_61, any, |p, info| windows_us(p, info, 4.0)),
    row("cuda-whole-pool", Family::Pool, Capabilities::SM_61, whole, whole_us),
];

/// Microseconds that a thread takes for a tap that the first cache holds, one after the other.
const TAP_US: f64 = 0.02;
/// Instructions of a tap: the loops over three axes, the load, and the operation.
const INSTRUCTIONS: f64 = 16.0;

fn fits(problem: &Problem) -> Result<&PoolProblem, &'static str> {
    let Problem::Pool(p) = problem else { return Err("not pooling") };
    let most = ELEMENTS as u128;
    let product = |v: &[usize]| v.iter().fold(p.planes as u128, |n, &d| n.saturating_mul(d as u128));
    let w = &p.window;
    let reach =
        |a: usize| (w.output[a].max(1) * w.strides[a] + w.kernel[a] * w.dilations[a]) as u128 + w.pads[a].unsigned_abs() as u128;
    match () {
        _ if product(&w.input) > most || product(&w.output) > most || (0..w.rank()).any(|a| reach(a) > most) => {
            Err("at most 2^31 - 1 elements")
        }
        _ => Ok(p),
    }
}

fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::U8 | DType::I8)
}

/// Sums and comparisons in f32.
pub(super) fn narrow(problem: &Problem) -> Result<(), &'static str> {
    let p = fits(problem)?;
    match p.pooling {
        _ if !is_narrow(p.dtype) => Err("takes f32, f16, bf16, u8 and i8 only"),
        _ if p.window.rank() > 3 => Err("at most 3 spatial axes"),
        Pooling::Max { indices: true, .. } => Err("no indices"),
        Pooling::Lp { .. } => Err("no norms"),
        _ => Ok(()),
    }
}

/// Everything, in f64.
pub(super) fn any(problem: &Problem) -> Result<(), &'static str> {
    let p = fits(problem)?;
    match p.pooling {
        _ if p.window.rank() > 6 => Err("at most 6 spatial axes"),
        Pooling::Lp { p } if !(1..=64).contains(&p) => Err("norms of order 1 to 64"),
        _ => Ok(()),
    }
}

/// One window, which is the plane.
pub(super) fn whole(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem)?;
    let Problem::Pool(p) = problem else { return Err("not pooling") };
    let w = &p.window;
    let plain = w.pads.iter().chain(&w.pads_end).all(|&v| v == 0) && w.dilations.iter().all(|&d| d == 1);
    match w.kernel == w.input && w.pixels() == 1 && plain && w.plane() > 0 {
        true => Ok(()),
        false => Err("several windows, or one that is not the plane"),
    }
}

fn bytes(p: &PoolProblem) -> f64 {
    (p.planes * (p.window.plane() + p.window.pixels()) * p.dtype.size_bytes()) as f64
}

pub(super) fn windows_us(problem: &Problem, info: &DeviceInfo, factor: f64) -> f64 {
    let Problem::Pool(p) = problem else { return f64::INFINITY };
    // A multiply-add is two operations.
    let work = p.flops() * 2.0 * INSTRUCTIONS * factor / (info.peaks.f32_gflops.max(1.0) * 1e3);
    launch_us(info, bytes(p), 0.7, work.max(p.window.taps() as f64 * TAP_US))
}

pub(super) fn whole_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Pool(p) = problem else { return f64::INFINITY };
    launch_us(info, bytes(p), 0.7, p.window.taps() as f64 * TAP_US / 32.0)
}
