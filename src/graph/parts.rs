//! Operators that come down to several problems, solved one after the other.

use super::{Problem, Type};
use crate::base::Tensor;

/// What a part reads, or what an output of the node is.
#[derive(Debug, Clone)]
pub enum Feed {
    /// An input of the node.
    Input(usize),
    /// Of this earlier part, this output.
    Part(usize, usize),
    /// Known before running.
    Known(Tensor),
}

/// One problem, what it reads and what it gives.
#[derive(Debug, Clone)]
pub struct Part {
    /// What to compute.
    pub problem: Problem,
    /// The problem's inputs.
    pub inputs: Vec<Option<Feed>>,
    /// Types of its outputs.
    pub outputs: Vec<Type>,
}

/// The parts of a node in order, and where its outputs come from.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The parts, each after those it reads from.
    pub parts: Vec<Part>,
    /// One for each output that the node may have.
    pub outputs: Vec<Feed>,
}

impl Parts {
    /// Adds a part; gives its first output.
    pub fn add(&mut self, problem: Problem, inputs: Vec<Option<Feed>>, outputs: Vec<Type>) -> Feed {
        self.parts.push(Part { problem, inputs, outputs });
        Feed::Part(self.parts.len() - 1, 0)
    }

    /// Whether another part, or an output of the node for which `wanted` holds, reads this output.
    pub fn reads(&self, part: usize, output: usize, wanted: impl Fn(usize) -> bool) -> bool {
        let is = |f: &Feed| matches!(f, Feed::Part(p, o) if (*p, *o) == (part, output));
        let inner = self.parts.iter().flat_map(|p| p.inputs.iter().flatten()).any(is);
        inner || self.outputs.iter().enumerate().any(|(i, f)| wanted(i) && is(f))
    }
}
