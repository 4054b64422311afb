//! What a graph asks for that the operator table does not have: all of it at once.

use super::{Attr, Graph, Node};

/// The attribute in which the loader says why a node without a definition cannot run.
pub const UNSUPPORTED: &str = "unsupported";

/// A node without a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Missing {
    /// Node name.
    pub node: String,
    /// Operator with its domain.
    pub op: String,
    /// Why it cannot run.
    pub why: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} ({}): {}", self.node, self.op, self.why)
    }
}

/// Every node, those of subgraphs too, that no definition covers.
pub fn unsupported(graph: &Graph) -> Vec<Missing> {
    let mut all = Vec::new();
    for node in &graph.nodes {
        if node.def.is_none() {
            all.push(Missing { node: node.name.clone(), op: node.full_op(), why: why(node) });
        }
        for attr in node.attrs.values() {
            if let Attr::Graph(g) = attr {
                all.extend(unsupported(g));
            }
        }
    }
    all
}

fn why(node: &Node) -> String {
    match node.attrs.get(UNSUPPORTED) {
        Some(Attr::Str(why)) => why.clone(),
        _ => "no such operator in the table".into(),
    }
}
