//! A graph's plans, one for each combination of input shapes, and their runs.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use super::arenas::Arenas;
use super::fuse::{drop_unused, fuse};
use super::loaded::{Loaded, Loading};
use super::lower::{Lowered, Source, lower};
use super::sparse::Patterns;
use super::storage::narrow;
use super::trial::Trial;
use super::walk::{Stop, Walk};
use super::weights::Weights;
use super::work::{FactId, Origin, Work};
use crate::base::{DType, Tensor, TensorView, lock};
use crate::device::Device;
use crate::device::api::{Bindings, CommandList, Place, Slot, Timing};
use crate::error::{Error, Result};
use crate::graph::{Graph, Problem, Type};
use crate::hardware::{self, DeviceInfo, DeviceKind};
use crate::kernel::choose;
use crate::memory::Rung;

/// Plans kept at most; the one unused for longest goes first.
const MAX_PLANS: usize = 64;

/// How plans are made.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Prefer kernels whose name contains this.
    pub wanted: Option<String>,
    /// Run every node by itself.
    pub no_fuse: bool,
    /// Refuse work that the device has no kernel for instead of giving it to the CPU.
    pub strict: bool,
    /// Store f32 values between kernels as this, where the device has kernels for it.
    pub storage: Option<DType>,
    /// Keep what measuring each command by itself needs.
    pub measured: bool,
}

/// What a command is, for reports.
#[derive(Debug, Clone)]
pub struct Label {
    /// The node's name.
    pub name: String,
    /// The operator, with what was fused into it.
    pub op: String,
    /// Why it runs on the CPU instead of the plan's device; `None` when it does not.
    pub fallback: Option<String>,
    /// Why its weights are multiplied as if two in every four were not zero; `None` when they are not, or no such weights.
    pub dense: Option<String>,
}

/// A graph on a device, with its plans.
pub struct Program {
    graph: Graph,
    device: Arc<dyn Device>,
    host: DeviceInfo,
    options: PlanOptions,
    weights: Weights,
    patterns: Patterns,
    arenas: Arc<Arenas>,
    plans: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    plans: HashMap<Key, (Arc<Plan>, u64)>,
    clock: u64,
}

/// What a plan depends on: which inputs are given, their types, and the elements read on the way.
#[derive(Clone, PartialEq)]
struct Key {
    inputs: Vec<Option<Type>>,
    observed: Vec<Tensor>,
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inputs.hash(state);
        for t in &self.observed {
            t.bytes().hash(state);
        }
    }
}

/// A plan for one combination of input shapes.
pub struct Plan {
    /// The launches.
    pub list: Arc<CommandList>,
    /// Bytes of a run's arena.
    pub arena_bytes: usize,
    loading: Loading,
    outputs: Vec<(Source, Type)>,
    slots: Vec<Type>,
    /// Facts that enter as inputs after the run's own: carried over from the plan before.
    carried_in: Vec<FactId>,
    end: End,
    /// Most bytes of the arena in use at one time: no arena for this plan is smaller.
    pub arena_bound_bytes: usize,
    /// What each command is.
    pub labels: Vec<Label>,
    /// Each command's problem with operands, when the plan is made for measuring.
    pub trials: Vec<Trial>,
}

enum End {
    Return,
    /// Output 0 is to be read, the others are kept for the next plan under these facts.
    Observe(Vec<FactId>),
}

impl Cache {
    /// Makes room for another plan; the one that goes.
    fn make_room(&mut self) -> Option<(Arc<Plan>, u64)> {
        let is_full = self.plans.len() >= MAX_PLANS;
        let oldest = self.plans.iter().min_by_key(|(_, (_, used))| *used).filter(|_| is_full).map(|(key, _)| key.clone())?;
        self.plans.remove(&oldest)
    }
}

/// A finished run.
pub struct Run {
    /// In the graph's order.
    pub outputs: Vec<Tensor>,
    /// The plans used, each with its timings when profiling.
    pub plans: Vec<(Arc<Plan>, Vec<Timing>)>,
}

impl Program {
    /// Takes a graph to a device.
    pub fn new(graph: Graph, device: Arc<dyn Device>, options: PlanOptions) -> Self {
        let host = hardware::cpu::info(1);
        let arenas = Arc::new(Arenas::new(device.clone()));
        let (weights, patterns, plans) = (Weights::new(graph.files.clone()), Patterns::default(), Arc::default());
        let program = Program { graph, device, host, options, weights, patterns, arenas, plans };
        program.offer(Rung::EvictCaches, &program.arenas, |arenas| arenas.give_back());
        program.offer(Rung::UnloadIdle, &program.plans, |cache| {
            let all: Vec<Arc<Plan>> = lock(cache).plans.values().map(|(plan, _)| plan.clone()).collect();
            all.iter().filter(|plan| plan.loading.unload()).count() > 0
        });
        program
    }

    /// Lets the device ask for what it has of `owned`, from whatever thread is short of memory. Runs go on.
    fn offer<T: Send + Sync + 'static>(&self, rung: Rung, owned: &Arc<T>, give: fn(&T) -> bool) {
        for pool in self.device.pools() {
            let owned = Arc::downgrade(owned);
            let relief = move |_: &_| owned.upgrade().is_some_and(|owned| give(&owned));
            pool.on_shortage_of(self.device.account(), rung, Box::new(relief));
        }
    }

    /// The graph as it is run.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where it runs.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Bytes of weights in memory: prepared ones, and constants that are not in a mapped file.
    pub fn weight_bytes(&self) -> usize {
        let constants = self.graph.values.iter().filter_map(|v| v.constant.as_ref());
        self.weights.bytes() + constants.filter(|t| !self.weights.is_mapped(t)).map(|t| t.bytes().len()).sum::<usize>()
    }

    /// Bytes of the constants that some plans read in mapped files, each counted once.
    pub fn mapped_bytes<'a>(&self, plans: impl Iterator<Item = &'a Plan>) -> usize {
        let commands = plans.flat_map(|plan| &plan.list.commands).filter(|c| c.kernel.device == DeviceKind::Cpu);
        let slots = commands.flat_map(|c| c.inputs.iter().flatten());
        let constant = |slot: &'a Slot| if let Place::Constant(t) = &slot.place { Some(t) } else { None };
        let mapped = slots.filter_map(constant).filter(|t| self.weights.is_mapped(t));
        mapped.map(|t| (t.address(), t.bytes().len())).collect::<BTreeMap<_, _>>().into_values().sum()
    }

    /// Plans in the cache.
    pub fn plan_count(&self) -> usize {
        self.cache().plans.len()
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        lock(&self.plans)
    }

    /// Runs on inputs in the graph's order: the required ones, then the optional ones (`None` keeps the default).
    pub fn run(&self, inputs: &[Option<TensorView>], profile: bool) -> Result<Run> {
        let types = inputs.iter().map(|v| v.as_ref().map(|v| Type::new(v.dtype, v.shape.clone()))).collect();
        let mut key = Key { inputs: types, observed: Vec::new() };
        let mut carried: HashMap<FactId, Tensor> = HashMap::new();
        let mut plans = Vec::new();
        let given: Vec<TensorView> = inputs.iter().flatten().cloned().collect();
        loop {
            let plan = self.plan(&key)?;
            let mut bound = given.clone();
            for fact in &plan.carried_in {
                let kept = carried.get(fact).map(Tensor::view);
                bound.push(
                    kept.ok_or_else(|| Error::Device { device: "planner".into(), why: format!("fact {fact} was not kept") })?,
                );
            }
            let (mut outputs, timings) = self.execute(&plan, &bound, profile)?;
            drop(bound);
            plans.push((plan.clone(), timings));
            match &plan.end {
                End::Return => return Ok(Run { outputs, plans }),
                End::Observe(facts) => {
                    key.observed.push(outputs.remove(0));
                    carried = facts.iter().copied().zip(outputs).collect();
                }
            }
        }
    }

    fn plan(&self, key: &Key) -> Result<Arc<Plan>> {
        {
            let mut cache = self.cache();
            cache.clock += 1;
            let now = cache.clock;
            if let Some((plan, used)) = cache.plans.get_mut(key) {
                *used = now;
                return Ok(plan.clone());
            }
        }
        let plan = Arc::new(self.build(key)?);
        let mut cache = self.cache();
        let oldest = cache.make_room();
        let now = cache.clock;
        cache.plans.insert(key.clone(), (plan.clone(), now));
        drop(cache);
        drop(oldest);
        Ok(plan)
    }

    fn build(&self, key: &Key) -> Result<Plan> {
        let mut walk = Walk::new(&self.host, &key.observed);
        let mut scope = walk.scope(&self.graph);
        let ports = self.graph.inputs.iter().chain(&self.graph.optional_inputs);
        let given = ports.zip(&key.inputs).filter_map(|(p, t)| Some((p.value, t.clone()?)));
        let mut input_count = 0;
        for (i, (value, ty)) in given.enumerate() {
            scope[value.0] = Some(walk.facts.add(ty, None, Origin::Input(i)));
            input_count = i + 1;
        }
        let (outputs, end) = match walk.graph(&self.graph, &mut scope, "") {
            Ok(()) => (self.output_facts(&scope)?, End::Return),
            Err(Stop::Error(e)) => return Err(e),
            Err(Stop::Observe { fact, live }) => observe_outputs(&walk, fact, live),
        };
        let works = walk.works.split_off(walk.cut);
        let carried_in = carry(&mut walk, &works, &outputs, input_count);
        self.finish(walk, works, outputs, carried_in, end)
    }

    fn finish(
        &self,
        mut walk: Walk,
        mut works: Vec<Work>,
        outputs: Vec<FactId>,
        carried_in: Vec<FactId>,
        end: End,
    ) -> Result<Plan> {
        drop_unused(&mut works, &walk.facts, &outputs);
        self.patterns.mark(&mut works, &walk.facts);
        let PlanOptions { wanted, no_fuse, strict, storage, measured } = &self.options;
        if !no_fuse {
            fuse(&mut works, &walk.facts, &outputs);
        }
        let wanted = wanted.as_deref();
        if let Some(to) = *storage {
            let cost_us = |p: &Problem| choose(self.device.info(), p, wanted).ok().map(|c| c.cost_us);
            narrow(&mut works, &mut walk.facts, &outputs, to, &cost_us);
        }
        let lowered = lower(&*self.device, &self.weights, wanted, *strict, &works, &walk.facts, &outputs)?;
        let Lowered { list, outputs, slots, reasons, arena_bound_bytes } = lowered;
        let of_work = |w: &Work| Trial::of_work(w, &walk.facts);
        let trials = if *measured { works.iter().map(of_work).collect::<Result<_>>()? } else { Vec::new() };
        let label = |(w, [fallback, dense]): (Work, [_; 2])| Label { name: w.name, op: w.op, fallback, dense };
        let labels = works.into_iter().zip(reasons).map(label).collect();
        let list = Arc::new(list);
        let loaded = Loaded::new(&self.device, &list)?;
        self.weights.let_go_of_copied(&list);
        let (arena_bytes, loading) = (loaded.arena_bytes(), Loading::new(self.device.clone(), loaded));
        Ok(Plan { list, arena_bytes, loading, outputs, slots, carried_in, end, arena_bound_bytes, labels, trials })
    }

    fn output_facts(&self, scope: &super::walk::Scope) -> Result<Vec<FactId>> {
        let fact = |p: &crate::graph::Port| {
            scope[p.value.0].ok_or_else(|| Error::BadModel {
                at: format!("output {}", self.graph.values[p.value.0].name),
                why: "nothing makes it".into(),
            })
        };
        self.graph.outputs.iter().map(fact).collect()
    }

    fn execute(&self, plan: &Plan, inputs: &[TensorView], profile: bool) -> Result<(Vec<Tensor>, Vec<Timing>)> {
        let mut written = plan.slots.iter().map(|t| Tensor::zeros(t.dtype, t.shape.clone())).collect::<Result<Vec<_>>>()?;
        let loaded = plan.loading.loaded(&plan.list)?;
        let mut arena = self.arenas.take(plan.arena_bytes)?;
        let done = {
            let mut views: Vec<_> = written.iter_mut().map(Tensor::view_mut).collect();
            loaded.run(Bindings { arena: &mut arena, inputs, outputs: &mut views, profile })
        };
        self.arenas.put(arena);
        let timings = done?;
        let output = |(source, ty): &(Source, Type)| match source {
            Source::Written(slot) => written[*slot].reshaped(ty.shape.clone()),
            Source::Known(t) => Ok(t.clone()),
            Source::Input(i) => inputs[*i].to_tensor()?.reshaped(ty.shape.clone()),
        };
        Ok((plan.outputs.iter().map(output).collect::<Result<_>>()?, timings))
    }
}

/// The facts that a plan gives when it ends at an observation: the one to read, then the roots of those still needed.
fn observe_outputs(walk: &Walk, fact: FactId, live: Vec<FactId>) -> (Vec<FactId>, End) {
    let mut kept: Vec<FactId> = live.into_iter().filter(|&f| walk.facts[f].value.is_none()).map(|f| walk.facts.root(f)).collect();
    kept.retain(|&f| walk.facts[f].origin == Origin::Work);
    kept.sort_unstable();
    kept.dedup();
    let outputs = std::iter::once(fact).chain(kept.iter().copied()).collect();
    (outputs, End::Observe(kept))
}

/// Turns facts made by work of earlier plans into inputs of this one, after its own `input_count`.
fn carry(walk: &mut Walk, works: &[Work], outputs: &[FactId], input_count: usize) -> Vec<FactId> {
    let made: std::collections::HashSet<FactId> = works.iter().flat_map(|w| w.outputs.iter().flatten().copied()).collect();
    let read = works.iter().flat_map(|w| w.inputs.iter().flatten()).chain(outputs);
    let mut carried: Vec<FactId> = read.map(|&f| walk.facts.root(f)).collect();
    carried.retain(|&f| walk.facts[f].value.is_none() && walk.facts[f].origin == Origin::Work && !made.contains(&f));
    carried.sort_unstable();
    carried.dedup();
    for (i, &f) in carried.iter().enumerate() {
        walk.facts[f].origin = Origin::Input(input_count + i);
    }
    carried
}
