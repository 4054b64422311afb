//! Kernels of the attend family.

use super::{KernelDef, Proof};
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceKind};

pub(super) static KERNELS: &[KernelDef] = &[KernelDef {
    name: "cpu-any-attend",
    device: DeviceKind::Cpu,
    family: Family::Attend,
    needs: Capabilities::empty(),
    proof: Proof::Run,
    accepts: |_| Ok(()),
    cost_us: |p, _| 1.0 + p.flops() / 500.0,
}];
