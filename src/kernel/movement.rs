//! Kernels of the movement family.

use super::{KernelDef, Proof};
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::movement::Movement;
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

/// Whether `kernel` may be given input `input` wherever it lies in host memory: a device copies its constants first, and the CPU's kernel takes
/// gathered rows as bytes. Tables of embeddings, the largest weights that no product packs, so stay in the model's file.
pub fn reads_bytes(kernel: &KernelDef, problem: &Problem, input: usize) -> bool {
    let Problem::Move(p) = problem else { return kernel.device != DeviceKind::Cpu };
    let gathers = matches!(p.movement, Movement::Gather { .. } | Movement::GatherElements { .. } | Movement::GatherNd { .. });
    kernel.device != DeviceKind::Cpu || (gathers && input == 0)
}
