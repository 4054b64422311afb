//! Kernels of the pool family.

use super::{KernelDef, Proof};
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceKind};

pub(super) static KERNELS: &[KernelDef] = &[KernelDef {
    name: "cpu-any-pool",
    device: DeviceKind::Cpu,
    family: Family::Pool,
    needs: Capabilities::empty(),
    proof: Proof::Run,
    accepts: |_| Ok(()),
    cost_us: |p, info| 2.0 + p.flops() / (info.threads as f64 * 2e3),
}];
