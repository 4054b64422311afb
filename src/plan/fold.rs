//! Constant folding at load: what depends on constants alone is computed once, whatever its size.

use super::walk::Walk;
use crate::graph::{Graph, Lower, Node};
use crate::hardware::DeviceInfo;

/// Folded constants larger than this, and larger than what they were made from, stay work of each run.
const GROWTH_LIMIT_BYTES: usize = 1 << 20;

/// Replaces nodes whose inputs are all constants by their results. A node that cannot be evaluated stays: the plan will
/// say why. Gives the number of nodes removed.
pub fn fold(graph: &mut Graph, host: &DeviceInfo) -> usize {
    let nodes = std::mem::take(&mut graph.nodes);
    let before = nodes.len();
    for node in nodes {
        if !(foldable(graph, &node) && try_fold(graph, &node, host)) {
            graph.nodes.push(node);
        }
    }
    before - graph.nodes.len()
}

fn foldable(graph: &Graph, node: &Node) -> bool {
    let ordinary = node.def.is_some_and(|d| !matches!(d.lower, Lower::Control));
    // Random operators and those of types alone are the planner's; an optional input may be overridden by the caller.
    let fixed = |v| graph.constant(v).is_some() && !graph.optional_inputs.iter().any(|p| p.value == v);
    ordinary && !node.uses().is_empty() && node.uses().into_iter().all(fixed)
}

fn try_fold(graph: &mut Graph, node: &Node, host: &DeviceInfo) -> bool {
    let alone = Graph { nodes: vec![node.clone()], ..Graph::default() };
    let mut walk = Walk::new(host, &[]);
    walk.evaluate_all = true;
    let mut scope = vec![None; graph.values.len()];
    let mut from_bytes = 0;
    for v in node.uses() {
        let Some(constant) = graph.constant(v) else { return false };
        from_bytes += constant.bytes().len();
        scope[v.0] = Some(walk.facts.add_known(constant.clone()));
    }
    if walk.graph(&alone, &mut scope, "").is_err() || !walk.works.is_empty() {
        return false;
    }
    let made: Vec<_> =
        node.outputs.iter().flatten().map(|v| (*v, scope[v.0].and_then(|f| walk.facts[f].value.clone()))).collect();
    let bytes: usize = made.iter().filter_map(|(_, t)| t.as_ref()).map(|t| t.bytes().len()).sum();
    let grows = bytes > GROWTH_LIMIT_BYTES && bytes > 8 * from_bytes;
    if grows || made.iter().any(|(_, t)| t.is_none()) {
        return false;
    }
    for (v, t) in made {
        graph.values[v.0].constant = t;
    }
    true
}
