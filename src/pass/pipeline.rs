//! The order of the passes.

use super::{adapted, attention, earlier, fold, fuse, integer, precision, rows, share, simplify};
use crate::graph::{Attr, Graph};

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

/// A rewrite of one graph; gives how often it changed something.
type Pass = fn(&mut Graph) -> usize;

/// In order: each may count on what those before it left. With whether its results are standard operators.
const PASSES: [(&str, Pass, bool); 8] = [
    ("remove no-ops", simplify::remove, true),
    ("share constants", share::constants, true),
    ("share nodes", share::nodes, true),
    ("fold into convolutions", fold::fold, true),
    ("fuse activations and normalisations", fuse::fuse, false),
    ("fuse attention", attention::fuse, false),
    ("read heads where they lie", attention::tokens_first, false),
    ("drop unused nodes", simplify::drop_unused, true),
];

/// Gives products between quantised tensors to the integer operators, on subgraphs too; gives how many. To be run before constants
/// are folded, which would turn quantised weights into floats.
pub fn integers(graph: &mut Graph) -> usize {
    everywhere(graph, &mut |g| rows::fuse(g) + earlier::quantize(g) + integer::rewrite(g))
}

/// The passes whose results are standard operators.
pub fn standard(mut graph: Graph) -> Graph {
    for (_, pass, _) in PASSES.iter().filter(|(.., standard)| *standard) {
        everywhere(&mut graph, &mut |g| pass(g));
    }
    graph
}

/// Runs all passes, on subgraphs too; gives how often each changed the graph.
pub fn optimize(mut graph: Graph, options: &PassOptions) -> (Graph, Vec<(String, usize)>) {
    let adapters = everywhere(&mut graph, &mut adapted::fuse);
    let mut counts = vec![("fuse adapters of low rank".to_string(), adapters)];
    for (name, pass, _) in PASSES {
        counts.push((name.to_string(), everywhere(&mut graph, &mut |g| pass(g))));
    }
    if let Some(weights) = options.weights {
        let mut kept = 0;
        let lowered = everywhere(&mut graph, &mut |g| {
            let done = precision::lower(g, weights);
            kept += done.kept;
            done.lowered
        });
        counts.push(("lower weight precision".to_string(), lowered));
        counts.push(("weights outside the lower precision's range".to_string(), kept));
    }
    counts.retain(|(_, n)| *n > 0);
    (graph, counts)
}

/// Subgraphs first: what they stop capturing may become unused outside.
pub(super) fn everywhere(graph: &mut Graph, pass: &mut dyn FnMut(&mut Graph) -> usize) -> usize {
    let mut count = 0;
    for attr in graph.nodes.iter_mut().flat_map(|n| n.attrs.values_mut()) {
        if let Attr::Graph(inner) = attr {
            count += everywhere(inner, pass);
        }
    }
    count + pass(graph)
}
