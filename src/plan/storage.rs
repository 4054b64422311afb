//! Values between kernels stored in half precision: sums, norms and functions are computed in f32 as ever, but what is written
//! to memory and read again takes half the bytes. Values that must be of one type change together, where the device has kernels
//! for all that touches them, predicted to be no slower.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::work::{FactId, Facts, Origin, Work};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::attend::AttendProblem;
use crate::graph::problem::movement::Movement;
use crate::graph::problem::reduce::ReduceKind;
use crate::graph::problem::{EpilogueSpec, GemmProblem};
use crate::scalar::Formula;

/// The largest finite f16.
const F16_MAX: f64 = 65504.0;

/// Predicted time of a problem's best kernel.
type Cost<'a> = &'a dyn Fn(&Problem) -> Option<f64>;

/// Stores f32 values that work makes as `to`, f16 or bf16, where the problems that result take no longer by `cost_us`, which is
/// `None` for what the device has no kernel for. `kept` facts are read after the plan and stay, as do values made by formulas with constants beyond f16.
/// Gives how many values changed.
pub fn narrow(works: &mut [Work], facts: &mut Facts, kept: &[FactId], to: DType, cost_us: Cost) -> usize {
    let mut narrowed = 0;
    for roots in groups(works, facts, kept) {
        let holds = |f: &Option<FactId>| f.is_some_and(|f| roots.contains(&facts.root(f)));
        let touched = |w: &Work| w.inputs.iter().chain(&w.outputs).any(holds);
        let which = |of: &[Option<FactId>]| -> Vec<usize> { (0..of.len()).filter(|&i| holds(&of[i])).collect() };
        let change = |(at, work): (usize, &Work)| {
            let problem = retyped(&work.problem, &which(&work.inputs), &which(&work.outputs), to)?;
            let saved_us = cost_us(&work.problem)? - cost_us(&problem)?;
            Some((at, problem, saved_us))
        };
        let changes = works.iter().enumerate().filter(|(_, w)| touched(w)).map(change).collect::<Option<Vec<_>>>();
        let Some(changes) = changes.filter(|c| c.iter().map(|c| c.2).sum::<f64>() >= 0.0) else { continue };
        for (at, problem, _) in changes {
            works[at].problem = problem;
        }
        narrowed += roots.len();
        facts.store(&roots, to);
    }
    narrowed
}

/// Sets of values that must be of one type and may change, in the order in which they are made.
fn groups(works: &[Work], facts: &Facts, kept: &[FactId]) -> Vec<HashSet<FactId>> {
    let mut leader: HashMap<FactId, FactId> = HashMap::new();
    let mut stuck: HashSet<FactId> = kept.iter().map(|&f| facts.root(f)).collect();
    for work in works {
        let roots = |of: &[Option<FactId>], which: &[usize]| -> Vec<FactId> {
            which.iter().filter_map(|&i| of.get(i).copied().flatten()).map(|f| facts.root(f)).collect()
        };
        let all: Vec<usize> = (0..work.outputs.len()).collect();
        let made = roots(&work.outputs, &all);
        if exceeds_f16(&work.problem) {
            stuck.extend(&made);
        }
        let (inputs, outputs) = tied(&work.problem, work.inputs.len(), work.outputs.len());
        let together = [roots(&work.inputs, &inputs), roots(&work.outputs, &outputs)].concat();
        for pair in together.windows(2) {
            join(&mut leader, pair[0], pair[1]);
        }
        made.iter().chain(&together).for_each(|&r| {
            leader.entry(r).or_insert(r);
        });
    }
    let fixed = |r: &FactId| {
        let fact = &facts[*r];
        fact.ty.dtype != DType::F32 || fact.value.is_some() || !matches!(fact.origin, Origin::Work) || stuck.contains(r)
    };
    let mut sets: BTreeMap<FactId, HashSet<FactId>> = BTreeMap::new();
    for &root in leader.keys() {
        sets.entry(find(&leader, root)).or_default().insert(root);
    }
    sets.into_values().filter(|s| !s.iter().any(fixed)).collect()
}

fn find(leader: &HashMap<FactId, FactId>, mut of: FactId) -> FactId {
    while let Some(&up) = leader.get(&of).filter(|&&up| up != of) {
        of = up;
    }
    of
}

/// The earlier one leads.
fn join(leader: &mut HashMap<FactId, FactId>, a: FactId, b: FactId) {
    leader.entry(a).or_insert(a);
    leader.entry(b).or_insert(b);
    let (a, b) = (find(leader, a), find(leader, b));
    leader.insert(a.max(b), a.min(b));
}

/// Whether a formula of the problem has constants that f16 cannot hold, as masks do.
fn exceeds_f16(problem: &Problem) -> bool {
    let large = |f: &Formula| f.largest_constant() > F16_MAX;
    match problem {
        Problem::Scalar(p) => large(&p.formula),
        Problem::Gemm(GemmProblem { epilogue: Some(e), .. }) => large(&e.formula),
        Problem::Conv(p) => p.epilogue.as_ref().is_some_and(|e| large(&e.formula)),
        _ => false,
    }
}

/// Inputs and outputs of a problem that are of one type.
fn tied(problem: &Problem, inputs: usize, outputs: usize) -> (Vec<usize>, Vec<usize>) {
    match problem {
        Problem::Scalar(_) | Problem::Gemm(_) | Problem::Conv(_) => (vec![], vec![]),
        Problem::Pool(_) => (vec![0], vec![0]),
        Problem::Reduce(p) => match &p.kind {
            ReduceKind::Normalize(n) if n.skip => (vec![0, 1, 4], (0..outputs).collect()),
            ReduceKind::Arg { .. } | ReduceKind::DynamicQuantize | ReduceKind::QuantizedSoftmax { .. } => (vec![0], vec![]),
            _ => (vec![0], (0..outputs).collect()),
        },
        Problem::Attend(AttendProblem::Attention(_)) => (vec![0, 1, 2, 4, 5], (0..outputs).collect()),
        Problem::Attend(AttendProblem::Rotary(_)) => (vec![0, 1, 2], vec![0]),
        Problem::Move(p) => match p.movement {
            Movement::Copy { .. } => ((0..inputs).collect(), (0..outputs).collect()),
            Movement::ScatterElements { .. } | Movement::ScatterNd { .. } => (vec![0, 2], vec![0]),
            Movement::OneHot { .. } => (vec![2], vec![0]),
            _ => (vec![0], vec![0]),
        },
        Problem::Recurrent(_) | Problem::Select(_) => ((0..inputs).collect(), (0..outputs).collect()),
    }
}

/// The problem with these inputs and outputs, tied ones all or none, stored as `to`; `None` where its family cannot say so.
fn retyped(problem: &Problem, inputs: &[usize], outputs: &[usize], to: DType) -> Option<Problem> {
    let mut problem = problem.clone();
    match &mut problem {
        Problem::Scalar(p) => {
            inputs.iter().for_each(|&i| p.operands[i].dtype = to);
            if !outputs.is_empty() {
                p.out.dtype = to;
            }
        }
        Problem::Gemm(p) => gemm(p, inputs, outputs, to)?,
        Problem::Conv(p) => {
            let own = p.own_inputs;
            p.x = if inputs.contains(&p.x_at) { to } else { p.x };
            let known = |&i: &usize| i == p.x_at || i >= own;
            (p.quant.is_none() && inputs.iter().all(known)).then_some(())?;
            retype_epilogue(&mut p.epilogue, &mut p.y, own, inputs, outputs, to);
        }
        Problem::Pool(p) => p.dtype = to,
        Problem::Reduce(p) => {
            let scales = matches!(p.kind, ReduceKind::DynamicQuantize | ReduceKind::QuantizedSoftmax { .. });
            (inputs.iter().all(|i| [0, 1, 4].contains(i)) && (outputs.is_empty() || !scales)).then_some(())?;
            p.x.dtype = if inputs.contains(&0) { to } else { p.x.dtype };
            outputs.iter().for_each(|&o| p.out[o] = to);
        }
        Problem::Attend(AttendProblem::Attention(a)) => {
            if let (true, Some(mask)) = (inputs.contains(&3), &mut a.mask) {
                mask.dtype = to;
            }
            if inputs.contains(&0) {
                a.dtype = to;
            }
        }
        Problem::Attend(AttendProblem::Rotary(r)) => r.dtype = to,
        Problem::Move(p) => {
            p.inputs.iter_mut().enumerate().filter(|(i, _)| inputs.contains(i)).for_each(|(_, t)| {
                t.iter_mut().for_each(|t| t.dtype = to);
            });
            outputs.iter().for_each(|&o| p.outputs[o].dtype = to);
        }
        Problem::Recurrent(_) | Problem::Select(_) => return None,
    }
    Some(problem)
}

fn gemm(p: &mut GemmProblem, inputs: &[usize], outputs: &[usize], to: DType) -> Option<()> {
    (p.contraction.is_none() && p.top.is_none()).then_some(())?;
    for &i in inputs.iter().filter(|&&i| i < p.inputs) {
        let lowered = p.b_as != p.b.dtype;
        let matrices = [Some(&mut p.a), Some(&mut p.b), p.c.as_mut()];
        let mut found = false;
        for m in matrices.into_iter().flatten().filter(|m| m.input == i && m.dtype == DType::F32) {
            (m.dtype, found) = (to, true);
        }
        found.then_some(())?;
        p.b_as = if lowered { p.b_as } else { p.b.dtype };
    }
    let own = p.inputs;
    retype_epilogue(&mut p.epilogue, &mut p.out, own, inputs, outputs, to);
    Some(())
}

/// Operands of the epilogue come after a family's `own` inputs; without an epilogue the family itself stores.
fn retype_epilogue(e: &mut Option<EpilogueSpec>, out: &mut DType, own: usize, inputs: &[usize], outputs: &[usize], to: DType) {
    if let Some(e) = e {
        inputs.iter().filter(|&&i| i >= own).for_each(|&i| e.operands[i - own].dtype = to);
    }
    if !outputs.is_empty() {
        *e.as_mut().map_or(out, |e| &mut e.out) = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Shape;
    use crate::graph::Type;
    use crate::graph::problem::{MoveProblem, ScalarProblem};
    use crate::scalar::arg;

    fn ty() -> Type {
        Type::new(DType::F32, Shape::from([4]))
    }

    fn work(problem: Problem, inputs: &[FactId], output: FactId) -> Work {
        let inputs = inputs.iter().copied().map(Some).collect();
        Work { key: String::new(), name: String::new(), op: String::new(), problem, inputs, outputs: vec![Some(output)] }
    }

    fn scalar(formula: Formula, inputs: &[FactId], output: FactId) -> Work {
        let operands = vec![ty(); inputs.len()];
        work(Problem::Scalar(ScalarProblem { formula, operands, out: ty() }), inputs, output)
    }

    /// An input, its exponential, its negation, both side by side, and the sum of the latter with itself, which is the result.
    fn chain(formula: Formula) -> (Facts, Vec<Work>, FactId) {
        let mut facts = Facts::default();
        let x = facts.add(ty(), None, Origin::Input(0));
        let [a, b, c, y] = std::array::from_fn(|_| facts.add(ty(), None, Origin::Work));
        let movement = Movement::Copy { pieces: Vec::new(), fill: None };
        let copy = Problem::Move(MoveProblem { movement, inputs: vec![Some(ty()); 2], outputs: vec![ty()] });
        let works =
            vec![scalar(formula, &[x], a), scalar(-arg(0), &[x], b), work(copy, &[a, b], c), scalar(arg(0) + arg(1), &[c, c], y)];
        (facts, works, y)
    }

    fn dtypes(facts: &Facts) -> Vec<DType> {
        (0..5).map(|f| facts[f].ty.dtype).collect()
    }

    #[test]
    fn what_lies_between_kernels_is_narrowed_and_what_others_see_is_not() {
        let (mut facts, mut works, y) = chain(arg(0).exp());
        assert_eq!(narrow(&mut works, &mut facts, &[y], DType::F16, &|_| Some(1.0)), 3);
        assert_eq!(dtypes(&facts), [DType::F32, DType::F16, DType::F16, DType::F16, DType::F32]);
        let Problem::Scalar(first) = &works[0].problem else { panic!() };
        assert_eq!((first.operands[0].dtype, first.out.dtype), (DType::F32, DType::F16));
        let Problem::Scalar(last) = &works[3].problem else { panic!() };
        assert_eq!((last.operands[1].dtype, last.out.dtype), (DType::F16, DType::F32));
    }

    #[test]
    fn a_group_stays_when_one_of_its_kernels_is_missing_or_f16_may_overflow() {
        let (mut facts, mut works, y) = chain(arg(0).exp());
        let cost = |p: &Problem| (!matches!(p, Problem::Move(_))).then_some(1.0);
        assert_eq!(narrow(&mut works, &mut facts, &[y], DType::F16, &cost), 0);
        let (mut facts, mut works, y) = chain(arg(0) * 1e5);
        assert_eq!(narrow(&mut works, &mut facts, &[y], DType::F16, &|_| Some(1.0)), 0);
        assert_eq!(dtypes(&facts), [DType::F32; 5]);
    }
}
