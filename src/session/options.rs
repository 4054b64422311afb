//! What the caller may ask of a session.

use std::path::PathBuf;

use crate::hardware::DeviceKind;
use crate::session::Model;
use crate::session::source::Tenant;

/// The arithmetic of matrix products and convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Precision {
    /// As the model says.
    #[default]
    F32,
    /// Weights stored as f16, sums in f32.
    F16,
    /// Weights as i8 with a scale for each output channel, activations as i8 with a scale for each row, sums exact.
    Int8,
}

/// Options of a session; the default chooses everything by itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run on this kind of device only; `None` lets the session choose.
    pub device: Option<DeviceKind>,
    /// Which device of that kind, by the driver's numbering.
    pub ordinal: usize,
    /// Names the model's account of memory on its devices; `None` takes the model's own name.
    pub name: Option<String>,
    /// The most memory that the session takes of each device: constants, tables and the arenas of runs. Over it, what it keeps for later
    /// runs is given back first, then it steps down, then a run ends with [`crate::Error::OverBudget`]. `None` is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Where memory is short, run half of the batch at a time. For models whose answer for an item does not depend on the other items: that
    /// the graph names a batch does not tell it. Then the answers are the same, to the bit.
    pub split_batch: bool,
    /// Do not watch the memory of NVIDIA devices through NVML (`HALFBYTE_PRESSURE=off` does the same). The watch is a thread for each
    /// device and process; under pressure it gives back what sessions keep for later runs.
    pub no_pressure_watch: bool,
    /// Arithmetic of the heavy operators.
    pub precision: Precision,
    /// Turn every step down (another device, another precision) into an error.
    pub strict: bool,
    /// Threads for CPU kernels; `None` takes all cores.
    pub threads: Option<usize>,
    /// Prefer kernels whose name contains this (`HALFBYTE_CPU` does the same).
    pub kernel: Option<String>,
    /// Record the time of every node in the report.
    pub profile: bool,
    /// Report non-finite float outputs as an error.
    pub check_finite: bool,
    /// Run the graph as it stands in the file, without fusions.
    pub no_optimize: bool,
    /// Where measurements of [`crate::session::tune()`] are kept; `None` is `HALFBYTE_CACHE`, else the user's cache folder.
    pub cache_dir: Option<PathBuf>,
}

impl Options {
    /// How a session of `model` uses its devices' memory.
    pub(crate) fn tenant(&self, model: &Model) -> Tenant {
        let off = std::env::var("HALFBYTE_PRESSURE").is_ok_and(|v| v == "off");
        let name = self.name.clone().unwrap_or_else(|| model.name().into());
        Tenant { name, limit_bytes: self.memory_limit_bytes.unwrap_or(u64::MAX), watch: !off && !self.no_pressure_watch }
    }
}
