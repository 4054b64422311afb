//! Follows a graph in order with every shape known.

use super::work::{FactId, Facts, Origin, Work};
use crate::base::{Shape, Tensor};
use crate::device::cpu::evaluate;
use crate::error::{Error, Result};
use crate::graph::problem::ScalarProblem;
use crate::graph::{Feed, Graph, Lower, Node, Operand, Parts, Problem, Refusal, Site, Type, ValueId};
use crate::hardware::DeviceInfo;

/// Known values larger than this are computed in the plan, not at planning time.
const EVALUATE_LIMIT_BYTES: usize = 64 << 10;

/// Why a walk ended early.
#[derive(Debug)]
pub enum Stop {
    /// The elements of this fact must be read before planning can go on; `live` facts are needed afterwards.
    Observe {
        /// To be read.
        fact: FactId,
        /// To be kept.
        live: Vec<FactId>,
    },
    /// The graph is wrong or unsupported.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Error(e)
    }
}

/// A walk's state.
pub struct Walk<'a> {
    /// The host's CPU, for evaluating known values.
    pub host: &'a DeviceInfo,
    /// What is known so far.
    pub facts: Facts,
    /// Work so far.
    pub works: Vec<Work>,
    /// Elements read by earlier plans of the same run, in the order they were asked for.
    pub observed: &'a [Tensor],
    /// How many of them have been used.
    pub used: usize,
    /// Work before this index ran in earlier plans.
    pub cut: usize,
    /// Evaluate every known value, whatever its size (folding constants at load).
    pub evaluate_all: bool,
}

/// The facts of a graph's values.
pub type Scope = Vec<Option<FactId>>;

impl<'a> Walk<'a> {
    /// A walk that has gone nowhere yet.
    pub fn new(host: &'a DeviceInfo, observed: &'a [Tensor]) -> Self {
        let facts = Facts::default();
        Walk { host, facts, works: Vec::new(), observed, used: 0, cut: 0, evaluate_all: false }
    }

    /// A scope that knows the graph's constants.
    pub fn scope(&mut self, graph: &Graph) -> Scope {
        graph.values.iter().map(|v| v.constant.as_ref().map(|t| self.facts.add_known(t.clone()))).collect()
    }

    /// Walks all nodes of `graph`. `path` names the scope over all plans.
    pub fn graph(&mut self, graph: &Graph, scope: &mut Scope, path: &str) -> Result<(), Stop> {
        for (i, node) in graph.nodes.iter().enumerate() {
            let step = self.node(node, scope, &format!("{path}{i}"));
            step.map_err(|stop| keep_alive(stop, &graph.nodes[i..], graph, scope))?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, scope: &mut Scope, key: &str) -> Result<(), Stop> {
        let at = || format!("node {} ({})", node.name, node.full_op());
        let def = node.def.ok_or_else(|| Error::Unsupported { at: at(), why: "no such operator in the table".into() })?;
        let inputs: Vec<Option<FactId>> = node.inputs.iter().map(|v| v.and_then(|v| scope[v.0])).collect();
        if let Lower::Control = def.lower {
            return self.control(node, &inputs, scope, key);
        }
        let (operands, types) = self.infer(node, def.infer, &inputs)?;
        let site = Site { node, inputs: &operands };
        let results = match def.lower {
            Lower::Value(value) => value(&site)?.into_iter().map(|t| self.facts.add_known(t)).collect(),
            Lower::View => vec![self.view(inputs.first().copied().flatten(), &types[0], &site)?],
            Lower::Scalar(formula) => {
                // Inputs beyond those that the formula reads say something about types only.
                let formula = formula(&site)?;
                let used: Vec<FactId> = inputs.iter().flatten().copied().take(formula.arity()).collect();
                let operands = used.iter().map(|&f| self.facts[f].ty.clone()).collect();
                let problem = ScalarProblem { formula, operands, out: types[0].clone() };
                let used = used.into_iter().map(Some).collect();
                self.compute(node, key, Problem::Scalar(problem), used, &types)?
            }
            Lower::Family(problem) => self.compute(node, key, problem(&site, &types)?, inputs, &types)?,
            Lower::Parts(parts) => self.parts(node, key, &parts(&site, &types)?, &inputs)?,
            Lower::Control => unreachable!("handled above"),
        };
        for (value, &fact) in node.outputs.iter().zip(&results) {
            if let Some(v) = value {
                scope[v.0] = Some(fact);
            }
        }
        self.epilogue(node, scope, key)
    }

    /// Output types of a node, reading elements that they depend on.
    fn infer(
        &mut self,
        node: &Node,
        infer: fn(&Site) -> Result<Vec<Type>, Refusal>,
        inputs: &[Option<FactId>],
    ) -> Result<(Vec<Option<Operand>>, Vec<Type>), Stop> {
        loop {
            let operand = |f: &FactId| Operand { ty: self.facts[*f].ty.clone(), value: self.facts[*f].value.clone() };
            let operands: Vec<Option<Operand>> = inputs.iter().map(|f| f.as_ref().map(operand)).collect();
            match infer(&Site { node, inputs: &operands }) {
                Ok(types) => return Ok((operands, types)),
                Err(Refusal::Error(e)) => return Err(e.into()),
                Err(Refusal::NeedsValue(i)) => {
                    let site = Site { node, inputs: &operands };
                    let fact = inputs.get(i).copied().flatten();
                    let fact = fact.ok_or_else(|| site.error(format!("input {i} is missing")))?;
                    self.observe(fact)?;
                }
            }
        }
    }

    /// Makes the elements of `fact` known, or stops the walk so that they can be read.
    pub fn observe(&mut self, fact: FactId) -> Result<Tensor, Stop> {
        if let Some(known) = &self.facts[fact].value {
            return Ok(known.clone());
        }
        let Some(value) = self.observed.get(self.used) else {
            return Err(Stop::Observe { fact, live: Vec::new() });
        };
        self.used += 1;
        self.cut = self.works.len();
        self.facts.know(fact, value)?;
        Ok(value.reshaped(self.facts[fact].ty.shape.clone())?)
    }

    fn view(&mut self, of: Option<FactId>, ty: &Type, site: &Site) -> Result<FactId, Stop> {
        let of = of.ok_or_else(|| site.error("input 0 is missing"))?;
        let value = match &self.facts[of].value {
            Some(t) => Some(t.reshaped(ty.shape.clone())?),
            None => None,
        };
        let origin = if value.is_some() { Origin::Known } else { Origin::View(of) };
        Ok(self.facts.add(ty.clone(), value, origin))
    }

    /// All parts of a node, in order.
    fn parts(&mut self, node: &Node, key: &str, parts: &Parts, inputs: &[Option<FactId>]) -> Result<Vec<FactId>, Stop> {
        let wants = |i: usize| node.outputs.get(i).is_some_and(|o| o.is_some());
        let mut made: Vec<Vec<FactId>> = Vec::with_capacity(parts.parts.len());
        for (i, part) in parts.parts.iter().enumerate() {
            let reads = part.inputs.iter().map(|f| f.as_ref().and_then(|f| self.feed(f, inputs, &made))).collect();
            let wanted = |o: usize| parts.reads(i, o, wants);
            made.push(self.launch(node, &format!("{key}.{i}"), part.problem.clone(), reads, &part.outputs, &wanted)?);
        }
        let site = Site { node, inputs: &[] };
        let out =
            |f: &Feed| self.feed(f, inputs, &made).ok_or_else(|| site.error("an output is an input that is missing").into());
        parts.outputs.iter().take(node.outputs.len()).map(out).collect()
    }

    fn feed(&mut self, feed: &Feed, inputs: &[Option<FactId>], made: &[Vec<FactId>]) -> Option<FactId> {
        match feed {
            Feed::Input(i) => inputs.get(*i).copied().flatten(),
            Feed::Part(part, output) => Some(made[*part][*output]),
            Feed::Known(tensor) => Some(self.facts.add_known(tensor.clone())),
        }
    }

    fn compute(
        &mut self,
        node: &Node,
        key: &str,
        problem: Problem,
        inputs: Vec<Option<FactId>>,
        types: &[Type],
    ) -> Result<Vec<FactId>, Stop> {
        self.launch(node, key, problem, inputs, types, &|i| node.outputs.get(i).is_some_and(|o| o.is_some()))
    }

    /// Evaluates the problem when its inputs are known, else adds work that writes the outputs for which `wanted` holds.
    fn launch(
        &mut self,
        node: &Node,
        key: &str,
        problem: Problem,
        inputs: Vec<Option<FactId>>,
        types: &[Type],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<FactId>, Stop> {
        let bytes = |t: &Type| t.shape.checked_numel().and_then(|n| n.checked_mul(t.dtype.size_bytes()));
        let total = types.iter().try_fold(0usize, |sum, t| sum.checked_add(bytes(t)?));
        let total =
            total.ok_or_else(|| crate::base::tensor::size_bytes(types[0].dtype, &Shape::from([usize::MAX; 3])).unwrap_err())?;
        let known = inputs.iter().flatten().all(|&f| self.facts[f].value.is_some());
        if total == 0 || (known && (self.evaluate_all || total <= EVALUATE_LIMIT_BYTES)) {
            let values: Vec<Option<Tensor>> = inputs.iter().map(|f| f.and_then(|f| self.facts[f].value.clone())).collect();
            let made = if total == 0 { empty(types)? } else { evaluate(self.host, &problem, &values, types)? };
            return Ok(made.into_iter().map(|t| self.facts.add_known(t)).collect());
        }
        let outputs: Vec<FactId> = types.iter().map(|t| self.facts.add(t.clone(), None, Origin::Work)).collect();
        self.works.push(Work {
            key: key.to_string(),
            name: node.name.clone(),
            op: node.full_op(),
            problem,
            inputs,
            outputs: outputs.iter().enumerate().map(|(i, &f)| wanted(i).then_some(f)).collect(),
        });
        Ok(outputs)
    }

    /// A node's epilogue as scalar work of its own; fusion joins them when the shapes allow it.
    fn epilogue(&mut self, node: &Node, scope: &mut Scope, key: &str) -> Result<(), Stop> {
        let (Some(epilogue), Some(Some(out))) = (&node.epilogue, node.outputs.first()) else { return Ok(()) };
        let own = scope[out.0].ok_or_else(|| Error::Node {
            node: node.name.clone(),
            op: node.full_op(),
            why: "invariant: a node with an epilogue has an output".into(),
        })?;
        let mut inputs = vec![Some(own)];
        inputs.extend(epilogue.inputs.iter().map(|v| scope[v.0]));
        let ty = self.facts[own].ty.clone();
        let operands = inputs.iter().flatten().map(|&f| self.facts[f].ty.clone()).collect();
        let problem = ScalarProblem { formula: epilogue.formula.clone(), operands, out: ty.clone() };
        let made = self.compute(node, &format!("{key}e"), Problem::Scalar(problem), inputs, &[ty])?;
        scope[out.0] = Some(made[0]);
        Ok(())
    }
}

fn empty(types: &[Type]) -> Result<Vec<Tensor>> {
    types.iter().map(|t| Tensor::zeros(t.dtype, t.shape.clone())).collect()
}

/// Adds to an observation's live facts those that the rest of a graph still reads.
fn keep_alive(stop: Stop, rest: &[Node], graph: &Graph, scope: &Scope) -> Stop {
    let Stop::Observe { fact, mut live } = stop else { return stop };
    let read = rest.iter().flat_map(|n| n.uses()).chain(graph.outputs.iter().map(|p| p.value));
    live.extend(read.filter_map(|v: ValueId| scope[v.0]));
    Stop::Observe { fact, live }
}
