//! The order of the passes.

use crate::graph::Graph;

/// How weights of matrix products are stored, when not as the model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightPrecision {
    /// f16, sums in f32.
    F16,
    /// i8 with a scale for each output channel.
    Int8,
}

/// What the passes may do.
#[derive(Debug, Clone, Default)]
pub struct PassOptions {
    /// Reduced precision of weights.
    pub weights: Option<WeightPrecision>,
}

/// Runs all passes; gives how often each changed the graph.
pub fn optimize(graph: Graph, _options: &PassOptions) -> (Graph, Vec<(String, usize)>) {
    (graph, Vec::new())
}
