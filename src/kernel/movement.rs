//! Kernels of the movement family.

use super::{KernelDef, Proof};
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceKind};

pub(super) static KERNELS: &[KernelDef] = &[KernelDef {
    name: "cpu-any-move",
    device: DeviceKind::Cpu,
    family: Family::Move,
    needs: Capabilities::empty(),
    proof: Proof::Run,
    accepts: |_| Ok(()),
    cost_us: |_, _| 5.0,
}];
