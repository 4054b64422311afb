//! Topological order.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::graph::{Graph, Node};

/// Puts the nodes in an order in which each stands after those it reads from, keeping the file's order where it can.
pub(super) fn sort(graph: &mut Graph) -> Result<()> {
    let producers = graph.producers();
    let needs = |n: &Node| n.uses().iter().filter_map(|v| producers.get(v).copied()).collect::<Vec<usize>>();
    let mut waiting: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let needs = needs(node);
        waiting.push(needs.len());
        for n in needs {
            readers.entry(n).or_default().push(i);
        }
    }
    let first = (0..graph.nodes.len()).filter(|&i| waiting[i] == 0);
    let mut ready: std::collections::BTreeSet<usize> = first.collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &r in readers.get(&i).into_iter().flatten() {
            waiting[r] -= 1;
            if waiting[r] == 0 {
                ready.insert(r);
            }
        }
    }
    if order.len() < graph.nodes.len() {
        let stuck = (0..graph.nodes.len()).filter(|&i| waiting[i] > 0).map(|i| graph.nodes[i].name.clone());
        let why = format!("nodes feed each other in a cycle: {}", stuck.take(8).collect::<Vec<_>>().join(", "));
        return Err(Error::BadModel { at: format!("graph {}", graph.name), why });
    }
    let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|i| nodes[i].take()).collect();
    Ok(())
}
