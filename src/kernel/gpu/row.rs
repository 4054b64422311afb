//! What all rows share.

use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};
use crate::kernel::{KernelDef, Proof};

/// Microseconds that a launch takes whatever it does, when launches follow each other on a stream.
pub const LAUNCH_US: f64 = 2.0;
/// Elements of a tensor at most: kernels index by 32 bits.
pub const ELEMENTS: usize = i32::MAX as usize;

/// A row of CUDA, of a kernel that no GPU has run yet.
pub const fn row(
    name: &'static str,
    family: Family,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    on(DeviceKind::Cuda, name, family, needs, accepts, cost_us)
}

/// A row of a device of this kind.
pub const fn on(
    device: DeviceKind,
    name: &'static str,
    family: Family,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    KernelDef { name, device, family, needs, proof: Proof::Interpreted, accepts, cost_us }
}

/// Microseconds of a launch that moves so many bytes at `share` of the device's rate, and computes so long beside.
pub fn launch_us(info: &DeviceInfo, bytes: f64, share: f64, compute_us: f64) -> f64 {
    LAUNCH_US + (bytes / (info.peaks.read_gbps.max(1.0) * share * 1e3)).max(compute_us)
}
