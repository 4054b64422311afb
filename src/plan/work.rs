//! What the walk over a graph gives: facts about values, and the work that makes them.

use std::collections::HashSet;

use crate::base::{DType, Tensor};
use crate::graph::{Problem, Type};

/// Index of a fact.
pub type FactId = usize;

/// Where a value's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Known before running.
    Known,
    /// An input of the run.
    Input(usize),
    /// Made by work.
    Work,
    /// The bytes of another fact under another shape.
    View(FactId),
}

/// What is known of a value.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its type.
    pub ty: Type,
    /// Its elements, when known before running.
    pub value: Option<Tensor>,
    /// Where its bytes come from.
    pub origin: Origin,
}

/// One kernel launch to be.
#[derive(Debug, Clone)]
pub struct Work {
    /// Names the node over all plans: the key of its prepared weights.
    pub key: String,
    /// The node's name.
    pub name: String,
    /// The operator, with what was fused into it.
    pub op: String,
    /// What to compute.
    pub problem: Problem,
    /// The kernel's inputs.
    pub inputs: Vec<Option<FactId>>,
    /// The kernel's outputs.
    pub outputs: Vec<Option<FactId>>,
}

/// The facts of one plan.
#[derive(Debug, Default)]
pub struct Facts(Vec<Fact>);

impl Facts {
    /// Adds a fact.
    pub fn add(&mut self, ty: Type, value: Option<Tensor>, origin: Origin) -> FactId {
        self.0.push(Fact { ty, value, origin });
        self.0.len() - 1
    }

    /// Adds a known value.
    pub fn add_known(&mut self, value: Tensor) -> FactId {
        let ty = Type::new(value.dtype(), value.shape().clone());
        self.add(ty, Some(value), Origin::Known)
    }

    /// Sets the elements of `id` and of every fact that shares its bytes.
    pub fn know(&mut self, id: FactId, value: &Tensor) -> crate::Result<()> {
        let root = self.root(id);
        for other in 0..self.0.len() {
            if self.root(other) == root {
                self.0[other].value = Some(value.reshaped(self.0[other].ty.shape.clone())?);
            }
        }
        Ok(())
    }

    /// Changes the element type of `roots` and of every fact that shares their bytes.
    pub fn store(&mut self, roots: &HashSet<FactId>, dtype: DType) {
        for id in 0..self.0.len() {
            if roots.contains(&self.root(id)) {
                self.0[id].ty.dtype = dtype;
            }
        }
    }

    /// The fact whose bytes `id` has.
    pub fn root(&self, mut id: FactId) -> FactId {
        while let Origin::View(of) = self.0[id].origin {
            id = of;
        }
        id
    }
}

impl std::ops::Index<FactId> for Facts {
    type Output = Fact;
    fn index(&self, id: FactId) -> &Fact {
        &self.0[id]
    }
}

impl std::ops::IndexMut<FactId> for Facts {
    fn index_mut(&mut self, id: FactId) -> &mut Fact {
        &mut self.0[id]
    }
}
