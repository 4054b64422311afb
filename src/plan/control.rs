//! If and Loop: the walk goes through the branch taken and through every iteration.

use super::walk::{Scope, Stop, Walk};
use super::work::FactId;
use crate::base::{DType, Shape, Tensor};
use crate::error::Result;
use crate::graph::{Attr, Attrs, Graph, Node, Site};

/// Iterations after which a Loop is refused.
const LOOP_LIMIT: i64 = 100_000;

impl Walk<'_> {
    pub(super) fn control(&mut self, node: &Node, inputs: &[Option<FactId>], scope: &mut Scope, key: &str) -> Result<(), Stop> {
        match node.op.as_str() {
            "If" => self.branch(node, inputs, scope, key),
            "Loop" => self.iterate(node, inputs, scope, key),
            _ => Err(Site { node, inputs: &[] }.unsupported("control flow other than If and Loop").into()),
        }
    }

    fn branch(&mut self, node: &Node, inputs: &[Option<FactId>], scope: &mut Scope, key: &str) -> Result<(), Stop> {
        let site = Site { node, inputs: &[] };
        let condition = inputs.first().copied().flatten().ok_or_else(|| site.error("the condition is missing"))?;
        let taken = truth(&self.observe(condition)?);
        let name = if taken { "then_branch" } else { "else_branch" };
        let body = site.graph(name).ok_or_else(|| site.error(format!("{name} is missing")))?;
        let results = self.body(body, scope, &[], &format!("{key}/{name}/"))?;
        bind(node, &results, scope);
        Ok(())
    }

    /// Walks a subgraph and gives the facts of its outputs.
    fn body(&mut self, body: &Graph, outer: &Scope, inputs: &[FactId], path: &str) -> Result<Vec<FactId>, Stop> {
        let mut scope = self.scope(body);
        for &(from, to) in &body.captures {
            scope[to.0] = outer[from.0];
        }
        for (port, &fact) in body.inputs.iter().zip(inputs) {
            scope[port.value.0] = Some(fact);
        }
        self.graph(body, &mut scope, path)?;
        let missing = || crate::Error::BadModel { at: body.name.clone(), why: "a subgraph's output has no value".into() };
        Ok(body.outputs.iter().map(|p| scope[p.value.0].ok_or_else(missing)).collect::<Result<_>>()?)
    }

    /// Loop of the ONNX specification: inputs are the trip count, the condition and the carried values; the body takes the
    /// iteration, the condition and the carried values, and gives the condition, the carried values and the scan outputs.
    fn iterate(&mut self, node: &Node, inputs: &[Option<FactId>], scope: &mut Scope, key: &str) -> Result<(), Stop> {
        let site = Site { node, inputs: &[] };
        let body = site.graph("body").ok_or_else(|| site.error("the body is missing"))?;
        let trips = match inputs.first().copied().flatten() {
            Some(f) => self.observe(f)?.to_i64().and_then(|v| v.first().copied()),
            None => None,
        };
        let mut going = match inputs.get(1).copied().flatten() {
            Some(f) => truth(&self.observe(f)?),
            None => true,
        };
        let carried = inputs.len().saturating_sub(2);
        let mut state: Vec<FactId> = inputs.iter().skip(2).flatten().copied().collect();
        if state.len() != carried || body.outputs.len() < carried + 1 {
            return Err(site.error("the body's outputs do not fit the carried values").into());
        }
        let mut scans: Vec<Vec<FactId>> = vec![Vec::new(); body.outputs.len() - carried - 1];
        let mut i = 0i64;
        while going && trips.is_none_or(|t| i < t) {
            if i >= LOOP_LIMIT {
                return Err(site.unsupported(format!("more than {LOOP_LIMIT} iterations")).into());
            }
            let mut given = vec![self.facts.add_known(Tensor::scalar(i)), self.facts.add_known(flag(going)?)];
            given.extend(&state);
            let results = self.body(body, scope, &given, &format!("{key}/body/"));
            let results = results.map_err(|stop| keep(stop, scans.iter().flatten().chain(&state)))?;
            going = truth(&self.observe(results[0]).map_err(|stop| keep(stop, scans.iter().flatten().chain(&results)))?);
            state = results[1..=carried].to_vec();
            for (all, &new) in scans.iter_mut().zip(&results[carried + 1..]) {
                all.push(new);
            }
            i += 1;
        }
        for (j, parts) in scans.iter().enumerate() {
            let whole = self.stack(node, body, j + carried + 1, parts, &format!("{key}/scan{j}/"))?;
            state.push(whole);
        }
        bind(node, &state, scope);
        Ok(())
    }

    /// The scan outputs of all iterations along a new first axis, through the operators' own definitions.
    fn stack(&mut self, node: &Node, body: &Graph, output: usize, parts: &[FactId], key: &str) -> Result<FactId, Stop> {
        if parts.is_empty() {
            let port = &body.outputs[output];
            let dims = port.dims.iter().flatten().map(|d| if let crate::graph::Dim::Known(n) = d { *n } else { 0 });
            let shape: Shape = std::iter::once(0).chain(dims).collect();
            return Ok(self.facts.add_known(Tensor::zeros(port.dtype.unwrap_or(DType::F32), shape)?));
        }
        let mut graph = Graph { name: format!("{} scan", node.name), ..Graph::default() };
        let axes = graph.add_value("axes", Some(Tensor::vector(&[0i64])));
        let mut rows = Vec::new();
        let mut scope_inputs = Vec::new();
        for i in 0..parts.len() {
            let (part, row) = (graph.add_value(format!("part{i}"), None), graph.add_value(format!("row{i}"), None));
            graph.nodes.push(Node::new("", "Unsqueeze", 13, vec![Some(part), Some(axes)], vec![Some(row)]));
            scope_inputs.push(part);
            rows.push(Some(row));
        }
        let whole = graph.add_value("whole", None);
        let concat =
            Node { attrs: Attrs::from([("axis".into(), Attr::Int(0))]), ..Node::new("", "Concat", 13, rows, vec![Some(whole)]) };
        graph.nodes.push(concat);
        let mut scope = self.scope(&graph);
        for (value, &fact) in scope_inputs.iter().zip(parts) {
            scope[value.0] = Some(fact);
        }
        self.graph(&graph, &mut scope, key)?;
        scope[whole.0].ok_or_else(|| Site { node, inputs: &[] }.error("invariant: Concat gives an output").into())
    }
}

fn truth(t: &Tensor) -> bool {
    t.to_i64().is_some_and(|v| v.first().is_some_and(|&v| v != 0))
}

fn flag(value: bool) -> Result<Tensor> {
    Tensor::from_raw(DType::Bool, Shape::scalar(), &[value.into()])
}

fn keep<'f>(stop: Stop, more: impl Iterator<Item = &'f FactId>) -> Stop {
    let Stop::Observe { fact, mut live } = stop else { return stop };
    live.extend(more);
    Stop::Observe { fact, live }
}

fn bind(node: &Node, results: &[FactId], scope: &mut Scope) {
    for (value, &fact) in node.outputs.iter().zip(results) {
        if let Some(v) = value {
            scope[v.0] = Some(fact);
        }
    }
}
