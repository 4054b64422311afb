//! Chooses kernels, has their weights prepared, and lays out the arena.

use std::collections::HashMap;
use std::sync::Arc;

use super::place::{Placed, place as choose_place};
use super::weights::Weights;
use super::work::{FactId, Facts, Origin, Work};
use crate::base::Tensor;
use crate::base::tensor::size_bytes;
use crate::device::Device;
use crate::device::api::{Command, CommandList, Place, Slot};
use crate::error::Result;
use crate::graph::Type;
use crate::kernel::{KernelDef, movement::reads_bytes, scalar::in_place};
use crate::memory::plan::{Effort, Lifetime, Placement, place};

/// Where an output of a plan comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Written by the commands into this output slot.
    Written(usize),
    /// Known at planning time.
    Known(Tensor),
    /// An input's bytes.
    Input(usize),
}

/// A command list and where its outputs come from.
pub struct Lowered {
    /// The launches.
    pub list: CommandList,
    /// One for each fact asked for, with its type.
    pub outputs: Vec<(Source, Type)>,
    /// Types of the output slots.
    pub slots: Vec<Type>,
    /// For each command why it runs on the CPU instead of the plan's device, and why zeros in weights are multiplied; `None` when they are not.
    pub reasons: Vec<[Option<String>; 2]>,
    /// No arena for these lifetimes is smaller.
    pub arena_bound_bytes: usize,
}

/// Lowers `works`; `outputs` are the facts that the caller gets. `strict` refuses work that the device has no kernel for.
pub fn lower(
    device: &dyn Device,
    weights: &Weights,
    wanted: Option<&str>,
    strict: bool,
    works: &[Work],
    facts: &Facts,
    outputs: &[FactId],
) -> Result<Lowered> {
    let mut layout = Layout::new(facts, works, outputs)?;
    let mut chosen = Vec::with_capacity(works.len());
    let mut reasons = Vec::with_capacity(works.len());
    for (i, work) in works.iter().enumerate() {
        let Placed { choice, fallback, dense } = choose_place(device, work, facts, wanted, strict)?;
        reasons.push([fallback, dense]);
        let prepared = weights.prepare(device, work, choice.kernel, facts)?;
        layout.touch(work, choice.kernel, &prepared.dropped, i)?;
        let scratch_life = layout.scratch(device.scratch_bytes(choice.kernel, &work.problem)?, i);
        chosen.push((work, choice, prepared, scratch_life));
    }
    let Placement { offsets, bytes: arena_bytes, bound: arena_bound_bytes, .. } = place(&layout.lives, &Effort::default())?;
    let commands = chosen.into_iter().map(|(work, choice, prepared, scratch)| Command {
        kernel: choice.kernel,
        problem: Arc::new(work.problem.clone()),
        inputs: slots(&work.inputs, &prepared.dropped, &layout, &offsets, &|i, t| match reads_bytes(
            choice.kernel,
            &work.problem,
            i,
        ) {
            true => t.clone(),
            false => weights.aligned(t),
        }),
        outputs: slots(&work.outputs, &[], &layout, &offsets, &|_, t| t.clone()),
        scratch: scratch.map_or((0, 0), |life| (offsets[life], layout.lives[life].bytes)),
        prepared: Some(prepared),
        cost_us: choice.cost_us,
    });
    let list = CommandList { commands: commands.collect(), arena_bytes };
    Ok(Lowered { list, outputs: layout.sources, slots: layout.slot_types, reasons, arena_bound_bytes })
}

fn slots(
    of: &[Option<FactId>],
    dropped: &[usize],
    layout: &Layout,
    offsets: &[usize],
    constant: &dyn Fn(usize, &Tensor) -> Tensor,
) -> Vec<Option<Slot>> {
    let slot = |i: usize, f: FactId| {
        let fact = &layout.facts[f];
        let place = match (&fact.value, layout.home.get(&layout.facts.root(f))) {
            (Some(t), _) => Place::Constant(constant(i, t)),
            (None, Some(Home::Arena(life))) => Place::Arena(offsets[*life]),
            (None, Some(Home::Output(o))) => Place::Output(*o),
            (None, Some(Home::Input(i))) => Place::Input(*i),
            (None, None) => unreachable!("every fact read was touched"),
        };
        Slot { place, ty: fact.ty.clone() }
    };
    of.iter().enumerate().map(|(i, f)| f.filter(|_| !dropped.contains(&i)).map(|f| slot(i, f))).collect()
}

/// Where a root's bytes live.
enum Home {
    Arena(usize),
    Output(usize),
    Input(usize),
}

struct Layout<'a> {
    facts: &'a Facts,
    home: HashMap<FactId, Home>,
    /// The last step that reads a root.
    last_read: HashMap<FactId, usize>,
    lives: Vec<Lifetime>,
    sources: Vec<(Source, Type)>,
    slot_types: Vec<Type>,
}

impl<'a> Layout<'a> {
    fn new(facts: &'a Facts, works: &[Work], outputs: &[FactId]) -> Result<Self> {
        let reads = works.iter().enumerate().flat_map(|(at, w)| w.inputs.iter().flatten().map(move |&f| (facts.root(f), at)));
        let (home, last_read) = (HashMap::new(), reads.collect());
        let mut layout = Layout { facts, home, last_read, lives: Vec::new(), sources: Vec::new(), slot_types: Vec::new() };
        for &f in outputs {
            let source = match (&facts[f].value, facts[facts.root(f)].origin) {
                (Some(t), _) => Source::Known(t.clone()),
                (None, Origin::Input(i)) => Source::Input(i),
                _ => layout.output(facts.root(f)),
            };
            layout.sources.push((source, facts[f].ty.clone()));
        }
        Ok(layout)
    }

    fn output(&mut self, root: FactId) -> Source {
        if let Some(Home::Output(o)) = self.home.get(&root) {
            return Source::Written(*o);
        }
        self.slot_types.push(self.facts[root].ty.clone());
        self.home.insert(root, Home::Output(self.slot_types.len() - 1));
        Source::Written(self.slot_types.len() - 1)
    }

    /// The lifetime that the output of step `at` takes over: that of an input which nothing reads afterwards, where the kernel may work in
    /// place.
    fn taken_over(&self, work: &Work, kernel: &KernelDef, at: usize) -> Option<(FactId, usize)> {
        let [Some(out)] = work.outputs[..] else { return None };
        let out = self.facts.root(out);
        let root = |i: usize| work.inputs[i].map(|f| self.facts.root(f));
        let once = |r: FactId| (0..work.inputs.len()).filter(|&i| root(i) == Some(r)).count() == 1;
        let bytes = size_bytes(self.facts[out].ty.dtype, &self.facts[out].ty.shape).ok()?;
        let life = |i: usize| match self.home.get(&root(i)?) {
            Some(Home::Arena(life)) if self.last_read[&root(i)?] == at && once(root(i)?) => Some(*life),
            _ => None,
        };
        let may = |i: &usize| in_place(kernel, &work.problem, *i);
        let life = (0..work.inputs.len()).filter(may).filter_map(life).find(|&l| self.lives[l].bytes == bytes)?;
        (!self.home.contains_key(&out)).then_some((out, life))
    }

    /// Notes that step `at` reads and writes the work's facts.
    fn touch(&mut self, work: &Work, kernel: &KernelDef, dropped: &[usize], at: usize) -> Result<()> {
        if let Some((out, life)) = self.taken_over(work, kernel, at) {
            self.home.insert(out, Home::Arena(life));
        }
        let read = work.inputs.iter().enumerate().filter(|(i, _)| !dropped.contains(i)).filter_map(|(_, f)| *f);
        for f in read.chain(work.outputs.iter().flatten().copied()) {
            let root = self.facts.root(f);
            let fact = &self.facts[root];
            if self.facts[f].value.is_some() {
                continue;
            }
            match (self.home.get(&root), fact.origin) {
                (Some(Home::Arena(life)), _) => self.lives[*life].last = at,
                (Some(_), _) => {}
                (None, Origin::Input(i)) => {
                    self.home.insert(root, Home::Input(i));
                }
                (None, _) => {
                    let bytes = size_bytes(fact.ty.dtype, &fact.ty.shape)?;
                    self.lives.push(Lifetime { bytes, first: at, last: at });
                    self.home.insert(root, Home::Arena(self.lives.len() - 1));
                }
            }
        }
        Ok(())
    }

    fn scratch(&mut self, bytes: usize, at: usize) -> Option<usize> {
        (bytes > 0).then(|| {
            self.lives.push(Lifetime { bytes, first: at, last: at });
            self.lives.len() - 1
        })
    }
}
