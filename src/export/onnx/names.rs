//! Names of values, unique where they are seen.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, ValueId};

/// The names of a graph and those around it.
pub(super) struct Names {
    /// Names of the graphs from the outermost to the one being written.
    seen: HashSet<String>,
    /// Every name that some value of the file has: not for others.
    wanted: HashSet<String>,
}

impl Names {
    /// For writing `graph`.
    pub fn new(graph: &Graph) -> Self {
        let mut wanted = HashSet::new();
        collect(graph, &mut wanted);
        Names { seen: HashSet::new(), wanted }
    }

    /// A name like `like` that nothing else has.
    pub fn fresh(&mut self, like: &str) -> String {
        let like = if like.is_empty() { "value" } else { like };
        let all = std::iter::once(like.to_string()).chain((1..).map(|i| format!("{like}_{i}")));
        let mut free = all.filter(|name| !self.seen.contains(name) && !self.wanted.contains(name));
        let name = free.next().expect("invariant: numbers do not end");
        self.seen.insert(name.clone());
        name
    }

    /// A name for each value of the outermost graph: its inputs and outputs keep theirs.
    pub fn outermost(&mut self, graph: &Graph) -> Result<Vec<String>> {
        let mut names = vec![None; graph.values.len()];
        for port in graph.inputs.iter().chain(&graph.optional_inputs).chain(&graph.outputs) {
            let (name, own) = (&graph.values[port.value.0].name, &mut names[port.value.0]);
            if own.is_none() && (name.is_empty() || !self.seen.insert(name.clone())) {
                let why = "inputs and outputs of a file need names of their own";
                return Err(Error::BadInput(format!("graph {}, value {name:?}: {why}", graph.name)));
            }
            *own = Some(name.clone());
        }
        Ok(self.rest(graph, names))
    }

    /// The same for a subgraph: what it captures has the name that it has outside. To be given back to [`Names::leave`].
    pub fn enter(&mut self, graph: &Graph, outside: &[String]) -> Vec<String> {
        let mut names = vec![None; graph.values.len()];
        for &(outer, own) in &graph.captures {
            names[own.0] = Some(outside[outer.0].clone());
        }
        self.rest(graph, names)
    }

    /// Names of a subgraph are free for the one beside it.
    pub fn leave(&mut self, graph: &Graph, names: &[String]) {
        let captured: HashSet<ValueId> = graph.captures.iter().map(|&(_, own)| own).collect();
        for (_, name) in names.iter().enumerate().filter(|(i, _)| !captured.contains(&ValueId(*i))) {
            self.seen.remove(name);
        }
    }

    /// Each value its own name if that is free, in order.
    fn rest(&mut self, graph: &Graph, names: Vec<Option<String>>) -> Vec<String> {
        let each = names.into_iter().zip(&graph.values).map(|(name, value)| match name {
            Some(name) => name,
            None if !value.name.is_empty() && self.seen.insert(value.name.clone()) => value.name.clone(),
            None => self.fresh(&value.name),
        });
        each.collect()
    }
}

fn collect(graph: &Graph, into: &mut HashSet<String>) {
    into.extend(graph.values.iter().map(|v| v.name.clone()));
    for attr in graph.nodes.iter().flat_map(|n| n.attrs.values()) {
        if let Attr::Graph(inner) = attr {
            collect(inner, into);
        }
    }
}
