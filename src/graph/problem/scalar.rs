//! Elementwise work.

use crate::graph::Type;
use crate::scalar::Formula;

/// A formula over broadcast operands.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarProblem {
    /// `arg(i)` is operand i.
    pub formula: Formula,
    /// Types of the operands; each broadcasts to `out`'s shape.
    pub operands: Vec<Type>,
    /// What is written.
    pub out: Type,
}

impl ScalarProblem {
    /// One for each step of the formula and element.
    pub fn flops(&self) -> f64 {
        self.formula.size() as f64 * self.out.shape.numel() as f64
    }
}
