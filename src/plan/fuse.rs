//! Joins scalar work: chains into one formula, and formulas into the epilogue of the matrix product or convolution before them.

use std::collections::{HashMap, HashSet};

use super::work::{FactId, Facts, Work};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::{EpilogueSpec, ScalarProblem};
use crate::scalar::{Domain, Formula, arg};

/// Operands of one fused formula at most: each takes a register of the formula's evaluator.
const MAX_OPERANDS: usize = 8;
/// Steps of one fused formula at most.
const MAX_STEPS: usize = 48;

/// Drops work that nobody reads; `kept` facts are read after the plan.
pub fn drop_unused(works: &mut Vec<Work>, facts: &Facts, kept: &[FactId]) {
    let mut read: HashSet<FactId> = kept.iter().map(|&f| facts.root(f)).collect();
    let mut keep = vec![false; works.len()];
    for (i, work) in works.iter().enumerate().rev() {
        keep[i] = work.outputs.iter().flatten().any(|&f| read.contains(&facts.root(f)));
        if keep[i] {
            read.extend(work.inputs.iter().flatten().map(|&f| facts.root(f)));
        }
    }
    let mut keep = keep.into_iter();
    works.retain(|_| keep.next().unwrap_or(true));
}

/// Fuses until nothing more can be. Gives the number of joins.
pub fn fuse(works: &mut Vec<Work>, facts: &Facts, kept: &[FactId]) -> usize {
    let mut slots: Vec<Option<Work>> = works.drain(..).map(Some).collect();
    let mut state = State::new(&slots, facts, kept);
    let mut joins = 0;
    for stage in [join_scalar as Join, join_epilogue as Join] {
        for i in 0..slots.len() {
            while state.join_at(&mut slots, facts, i, stage) {
                joins += 1;
            }
        }
    }
    works.extend(slots.into_iter().flatten());
    joins
}

/// Joins the producer of operand `at` into the consumer, if the two allow it.
type Join = fn(&Work, &Work, usize) -> Option<Work>;

struct State {
    producer: HashMap<FactId, usize>,
    /// Works that read each root, or see it after the plan.
    readers: HashMap<FactId, usize>,
}

impl State {
    fn new(slots: &[Option<Work>], facts: &Facts, kept: &[FactId]) -> Self {
        let mut producer = HashMap::new();
        let mut readers = HashMap::new();
        for (i, work) in slots.iter().enumerate() {
            let Some(work) = work else { continue };
            producer.extend(work.outputs.iter().flatten().map(|&f| (f, i)));
            for root in roots(work, facts) {
                *readers.entry(root).or_insert(0) += 1;
            }
        }
        for &f in kept {
            *readers.entry(facts.root(f)).or_insert(0) += 1;
        }
        State { producer, readers }
    }

    fn join_at(&mut self, slots: &mut [Option<Work>], facts: &Facts, i: usize, join: Join) -> bool {
        let Some(consumer) = &slots[i] else { return false };
        // The latest producer first: of two convolutions added together, the second takes the sum.
        let mut operands: Vec<(usize, usize)> =
            (0..consumer.inputs.len()).filter_map(|at| Some((*self.producer.get(&consumer.inputs[at]?)?, at))).collect();
        operands.sort_by_key(|&(p, _)| std::cmp::Reverse(p));
        for (p, at) in operands {
            let fact = consumer.inputs[at].expect("invariant: filtered above");
            let Some(producer) = slots[p].as_ref().filter(|w| p < i && w.outputs.iter().flatten().count() == 1) else { continue };
            if self.readers.get(&fact) != Some(&1) {
                continue;
            }
            let Some(joined) = join(producer, consumer, at) else { continue };
            for root in roots(producer, facts).into_iter().chain(roots(consumer, facts)) {
                self.readers.entry(root).and_modify(|n| *n -= 1);
            }
            for root in roots(&joined, facts) {
                *self.readers.entry(root).or_insert(0) += 1;
            }
            slots[p] = None;
            slots[i] = Some(joined);
            return true;
        }
        false
    }
}

fn roots(work: &Work, facts: &Facts) -> HashSet<FactId> {
    work.inputs.iter().flatten().map(|&f| facts.root(f)).collect()
}

fn join_scalar(producer: &Work, consumer: &Work, at: usize) -> Option<Work> {
    let (Problem::Scalar(first), Problem::Scalar(second)) = (&producer.problem, &consumer.problem) else { return None };
    if first.out != second.operands[at] || first.out.shape != second.out.shape {
        return None;
    }
    let inner = first.formula.clone();
    let inner = if first.out.dtype == DType::F32 { inner } else { inner.cast(first.out.dtype) };
    let mut operands = Operands::default();
    let first_args: Vec<Formula> = (0..first.operands.len()).map(|i| operands.arg(producer, first, i)).collect();
    let fact = consumer.inputs[at];
    let inner = inner.compose(&first_args);
    let second_args: Vec<Formula> = (0..second.operands.len())
        .map(|i| if consumer.inputs[i] == fact { inner.clone() } else { operands.arg(consumer, second, i) })
        .collect();
    let formula = second.formula.compose(&second_args);
    if operands.inputs.len() > MAX_OPERANDS || formula.size() > MAX_STEPS {
        return None;
    }
    let joined = ScalarProblem { formula, operands: operands.types, out: second.out.clone() };
    // What wraps as integers do is not computed in floats, nor floats in integers.
    let integers = |p: &ScalarProblem| p.domain() == Domain::I64;
    if [first, second].into_iter().any(|p| integers(p) != integers(&joined) && !p.is_logical()) {
        return None;
    }
    Some(Work { problem: Problem::Scalar(joined), inputs: operands.inputs, ..label(producer, consumer) })
}

fn join_epilogue(producer: &Work, consumer: &Work, at: usize) -> Option<Work> {
    let Problem::Scalar(scalar) = &consumer.problem else { return None };
    let sums = matches!(&producer.problem, Problem::Conv(p) if p.gives_sums());
    // Convolutions' sums, those of integers too, reach the formula as f32, may meet bytes there, and leave it as bytes.
    let conv = matches!(producer.problem, Problem::Conv(_));
    let fits = |d: DType| d == DType::F32 || (conv && matches!(d, DType::I8 | DType::U8));
    let from = if sums { DType::I32 } else { DType::F32 };
    let given = &scalar.operands[at];
    if given.shape != scalar.out.shape || given.dtype != from || !fits(scalar.out.dtype) || scalar.domain() != Domain::F32 {
        return None;
    }
    let fact = consumer.inputs[at];
    let mut operands = Operands::default();
    let args: Vec<Formula> = (0..scalar.operands.len())
        .map(|i| if consumer.inputs[i] == fact { arg(0) } else { operands.arg_after(consumer, scalar, i) })
        .collect();
    if operands.types.iter().any(|t| !fits(t.dtype)) || operands.inputs.len() > MAX_OPERANDS {
        return None;
    }
    let epilogue = EpilogueSpec { formula: scalar.formula.compose(&args), operands: operands.types, out: scalar.out.dtype };
    let mut problem = producer.problem.clone();
    problem.with_epilogue(epilogue).ok()?;
    let inputs = producer.inputs.iter().copied().chain(operands.inputs).collect();
    Some(Work { problem, inputs, key: producer.key.clone(), ..label(producer, consumer) })
}

/// The consumer's work under both names.
fn label(producer: &Work, consumer: &Work) -> Work {
    Work { name: producer.name.clone(), op: format!("{}+{}", producer.op, consumer.op), ..consumer.clone() }
}

/// The operands of a joined formula, each fact once.
#[derive(Default)]
struct Operands {
    inputs: Vec<Option<FactId>>,
    types: Vec<crate::graph::Type>,
}

impl Operands {
    fn position(&mut self, work: &Work, problem: &ScalarProblem, i: usize) -> usize {
        let (fact, ty) = (work.inputs[i], &problem.operands[i]);
        let known = self.inputs.iter().zip(&self.types).position(|(f, t)| *f == fact && t == ty);
        known.unwrap_or_else(|| {
            self.inputs.push(fact);
            self.types.push(ty.clone());
            self.inputs.len() - 1
        })
    }

    fn arg(&mut self, work: &Work, problem: &ScalarProblem, i: usize) -> Formula {
        arg(self.position(work, problem, i))
    }

    /// As the operand of an epilogue, where `arg(0)` is the family's result.
    fn arg_after(&mut self, work: &Work, problem: &ScalarProblem, i: usize) -> Formula {
        arg(self.position(work, problem, i) + 1)
    }
}
