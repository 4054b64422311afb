//! Weights as kernels read them. What a constant was made into is shared by all plans and by all nodes that ask for the same; then its
//! pages in the model's file are let go of: whoever wants the constant again reads it there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::work::{Facts, Work};
use crate::base::{Mapped, Tensor, lock};
use crate::device::Device;
use crate::device::api::{CommandList, Place, Prepared};
use crate::error::Result;
use crate::graph::Problem;
use crate::hardware::DeviceKind;
use crate::kernel::KernelDef;

/// Kernel, and the addresses of the work's constants.
type Key = (&'static str, Vec<usize>);

/// A prepared form.
struct Kept {
    made: Arc<Prepared>,
    /// For what.
    problem: Problem,
    /// The nodes that it serves, in plans of all shapes.
    nodes: HashSet<String>,
    /// What it was made from: stays alive so that no other constant can come to lie at the key's addresses.
    _constants: Vec<Tensor>,
}

/// Weights made ready, shared by all plans of a program.
pub struct Weights {
    files: Vec<Mapped>,
    prepared: Mutex<HashMap<Key, Vec<Kept>>>,
    /// By address and bytes: the constant, which stays alive so that no other can come to lie there, and its aligned copy.
    aligned: Mutex<HashMap<(usize, usize), (Tensor, Tensor)>>,
}

impl Weights {
    /// None yet, of a graph with constants in these files.
    pub fn new(files: Vec<Mapped>) -> Self {
        Weights { files, prepared: Mutex::default(), aligned: Mutex::default() }
    }

    /// Bytes held beyond the model's own constants.
    pub fn bytes(&self) -> usize {
        let parts = |k: &Kept| k.made.packed.iter().flat_map(|p| &p.parts).map(|t| t.bytes().len()).sum::<usize>();
        let packed: usize = lock(&self.prepared).values().flatten().map(parts).sum();
        packed + lock(&self.aligned).values().map(|(_, t)| t.bytes().len()).sum::<usize>()
    }

    /// Whether a constant lies in a mapped file.
    pub fn is_mapped(&self, constant: &Tensor) -> bool {
        self.files.iter().any(|file| file.holds(constant.bytes()))
    }

    /// The work's constants as `kernel` wants them. Errors as the device does.
    pub fn prepare(&self, device: &dyn Device, work: &Work, kernel: &'static KernelDef, facts: &Facts) -> Result<Arc<Prepared>> {
        let constants: Vec<Option<Tensor>> = work.inputs.iter().map(|f| f.and_then(|f| facts[f].value.clone())).collect();
        let key: Key = (kernel.name, constants.iter().map(|t| t.as_ref().map_or(0, Tensor::address)).collect());
        if let Some(found) = self.find(&key, work) {
            return Ok(found);
        }
        let made = Arc::new(device.prepare(kernel, &work.problem, &constants)?);
        made.dropped.iter().filter_map(|&i| constants.get(i)?.as_ref()).for_each(|t| self.let_go(t));
        if made.packed.is_some() {
            let (problem, nodes) = (work.problem.clone(), HashSet::from([work.key.clone()]));
            let kept = Kept { made: made.clone(), problem, nodes, _constants: constants.into_iter().flatten().collect() };
            lock(&self.prepared).entry(key).or_default().push(kept);
        }
        Ok(made)
    }

    /// What was made for this node, or for the same problem with the same constants: steps of a loop, a layer that occurs twice.
    fn find(&self, key: &Key, work: &Work) -> Option<Arc<Prepared>> {
        let mut all = lock(&self.prepared);
        let kept = all.get_mut(key)?;
        let own = kept.iter().position(|k| k.nodes.contains(&work.key));
        let at = own.or_else(|| kept.iter().position(|k| k.problem == work.problem))?;
        let found = &mut kept[at];
        found.nodes.insert(work.key.clone());
        Some(found.made.clone())
    }

    /// A constant on a boundary that every kernel can read from.
    pub fn aligned(&self, constant: &Tensor) -> Tensor {
        let key = (constant.address(), constant.bytes().len());
        let mut all = lock(&self.aligned);
        if let Some((_, copy)) = all.get(&key) {
            return copy.clone();
        }
        let aligned = constant.aligned();
        if aligned.address() != constant.address() {
            self.let_go(constant);
            all.insert(key, (constant.clone(), aligned.clone()));
        }
        aligned
    }

    /// Lets go of the constants that a device other than the CPU has copied.
    pub fn let_go_of_copied(&self, list: &CommandList) {
        let on_device = list.commands.iter().filter(|c| c.kernel.device != DeviceKind::Cpu);
        for slot in on_device.flat_map(|c| c.inputs.iter().flatten()) {
            if let Place::Constant(t) = &slot.place {
                self.let_go(t);
            }
        }
    }

    fn let_go(&self, constant: &Tensor) {
        self.files.iter().for_each(|file| file.let_go(constant.bytes()));
    }
}
