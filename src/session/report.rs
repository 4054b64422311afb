//! What a session did and why.

use crate::hardware::DeviceKind;
use crate::session::Precision;

/// One executed step.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NodeReport {
    /// Node name in the file (the first of those fused).
    pub name: String,
    /// Operator, with what was fused into it.
    pub op: String,
    /// Kernel that ran it; empty for views.
    pub kernel: String,
    /// Output element type and shape.
    pub output: String,
    /// Multiplications and additions.
    pub flops: f64,
    /// Time predicted by the chooser, in microseconds.
    pub predicted_us: f64,
    /// Mean measured time over all profiled runs, in microseconds.
    pub measured_us: Option<f64>,
    /// Start of the last profiled launch since the run's start, in microseconds.
    pub started_us: Option<f64>,
}

/// What a session did: device, precision, kernel and time for each node, and every step down with its reason.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Report {
    /// Where it runs.
    pub device: DeviceKind,
    /// The device's name.
    pub device_name: String,
    /// Precision asked for.
    pub precision: Precision,
    /// Threads of CPU kernels.
    pub threads: usize,
    /// Every time that something else than asked for was done, and why.
    pub notes: Vec<String>,
    /// Passes that changed the graph, and how often.
    pub passes: Vec<(String, usize)>,
    /// Steps of the most recently used plan.
    pub nodes: Vec<NodeReport>,
    /// Bytes of weights, packed ones included.
    pub weight_bytes: usize,
    /// Bytes of the arena of the most recently used plan.
    pub arena_bytes: usize,
    /// Plans in the cache.
    pub plans: usize,
    /// Runs so far.
    pub runs: u64,
}
