//! A kernel's description: all that the chooser and people need to know of it.

use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

/// Whether the kernel's tests have ever run on its instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Proof {
    /// A run is recorded in docs/results: may be chosen by default.
    Run,
    /// Assembled for its instruction set and run by an interpreter of it, against the CPU's results: may be chosen by default.
    Interpreted,
    /// Compiled only: chosen when its name is asked for, never by default.
    Compiled,
}

/// One row of the kernel table. All functions are pure.
pub struct KernelDef {
    /// Unique name: device, types, tile. E.g. `cpu-avx2-f32-6x16`.
    pub name: &'static str,
    /// Where it runs.
    pub device: DeviceKind,
    /// What it solves.
    pub family: Family,
    /// What the device must have.
    pub needs: Capabilities,
    /// Whether it has been seen right on its instruction set.
    pub proof: Proof,
    /// Whether it takes this problem; if not, why.
    pub accepts: fn(&Problem) -> Result<(), &'static str>,
    /// Predicted time in microseconds.
    pub cost_us: fn(&Problem, &DeviceInfo) -> f64,
}

impl std::fmt::Debug for KernelDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KernelDef({})", self.name)
    }
}
