//! Kernels of the select family.

use super::{KernelDef, Proof};
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceKind};

pub(super) static KERNELS: &[KernelDef] = &[KernelDef {
    name: "cpu-any-select",
    device: DeviceKind::Cpu,
    family: Family::Select,
    needs: Capabilities::empty(),
    proof: Proof::Run,
    accepts: |_| Ok(()),
    cost_us: |_, _| 10.0,
}];
