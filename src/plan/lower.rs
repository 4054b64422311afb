//! Prepares weights, and lays out the arena.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::place::{Placed, place as choose_place};
use super::work::{FactId, Facts, Origin, Work};
use crate::base::tensor::size_bytes;
use crate::base::{Tensor, lock};
use crate::device::Device;
use crate::device::api::{Command, CommandList, Place, Prepared, Slot};
use crate::error::Result;
use crate::graph::Type;
use crate::kernel::{Choice, KernelDef, scalar::in_place};
use crate::memory::plan::{Effort, Lifetime, Placement, place};

/// Node, kernel, and the addresses of the node's constants.
type PreparedKey = (String, &'static str, Vec<usize>);

/// The prepared form, and the constants it was made from.
type Kept = (Arc<Prepared>, Vec<Tensor>);

/// Weights made ready, shared by all plans of a program.
#[derive(Default)]
pub struct Weights {
    prepared: Mutex<HashMap<PreparedKey, Kept>>,
    /// By address and bytes: the constant, which stays alive so that no other can come to lie there, and its aligned copy.
    aligned: Mutex<HashMap<(usize, usize), (Tensor, Tensor)>>,
}

impl Weights {
    /// Bytes held beyond the model's own file.
    pub fn bytes(&self) -> usize {
        let parts = |p: &Prepared| p.packed.iter().flat_map(|p| &p.parts).map(|t| t.bytes().len()).sum::<usize>();
        let packed: usize = lock(&self.prepared).values().map(|(p, _)| parts(p)).sum();
        packed + lock(&self.aligned).values().map(|(_, t)| t.bytes().len()).sum::<usize>()
    }

    fn prepare(&self, device: &dyn Device, work: &Work, choice: &Choice, facts: &Facts) -> Result<Arc<Prepared>> {
        let constants: Vec<Option<Tensor>> = work.inputs.iter().map(|f| f.and_then(|f| facts[f].value.clone())).collect();
        let addresses = constants.iter().map(|t| t.as_ref().map_or(0, Tensor::address)).collect();
        let key = (work.key.clone(), choice.kernel.name, addresses);
        if let Some((found, _)) = lock(&self.prepared).get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(device.prepare(choice.kernel, &work.problem, &constants)?);
        if made.packed.is_some() {
            // The tensors stay alive so that no other constant can come to lie at the key's addresses.
            lock(&self.prepared).insert(key, (made.clone(), constants.into_iter().flatten().collect()));
        }
        Ok(made)
    }

    fn aligned(&self, constant: &Tensor) -> Tensor {
        let key = (constant.address(), constant.bytes().len());
        let mut all = lock(&self.aligned);
        if let Some((_, copy)) = all.get(&key) {
            return copy.clone();
        }
        let aligned = constant.aligned();
        if aligned.address() != constant.address() {
            all.insert(key, (constant.clone(), aligned.clone()));
        }
        aligned
    }
}

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
        let prepared = weights.prepare(device, work, &choice, facts)?;
        layout.touch(work, choice.kernel, &prepared.dropped, i)?;
        let scratch_life = layout.scratch(device.scratch_bytes(choice.kernel, &work.problem)?, i);
        chosen.push((work, choice, prepared, scratch_life));
    }
    let Placement { offsets, bytes: arena_bytes, bound: arena_bound_bytes, .. } = place(&layout.lives, &Effort::default())?;
    let commands = chosen.into_iter().map(|(work, choice, prepared, scratch)| Command {
        kernel: choice.kernel,
        problem: Arc::new(work.problem.clone()),
        inputs: slots(&work.inputs, &prepared.dropped, &layout, &offsets, weights),
        outputs: slots(&work.outputs, &[], &layout, &offsets, weights),
        scratch: scratch.map_or((0, 0), |life| (offsets[life], layout.lives[life].bytes)),
        prepared: Some(prepared),
        cost_us: choice.cost_us,
    });
    let list = CommandList { commands: commands.collect(), arena_bytes };
    Ok(Lowered { list, outputs: layout.sources, slots: layout.slot_types, reasons, arena_bound_bytes })
}

fn slots(of: &[Option<FactId>], dropped: &[usize], layout: &Layout, offsets: &[usize], weights: &Weights) -> Vec<Option<Slot>> {
    let slot = |f: FactId| {
        let fact = &layout.facts[f];
        let place = match (&fact.value, layout.home.get(&layout.facts.root(f))) {
            (Some(t), _) => Place::Constant(weights.aligned(t)),
            (None, Some(Home::Arena(life))) => Place::Arena(offsets[*life]),
            (None, Some(Home::Output(o))) => Place::Output(*o),
            (None, Some(Home::Input(i))) => Place::Input(*i),
            (None, None) => unreachable!("every fact read was touched"),
        };
        Slot { place, ty: fact.ty.clone() }
    };
    of.iter().enumerate().map(|(i, f)| f.filter(|_| !dropped.contains(&i)).map(slot)).collect()
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
