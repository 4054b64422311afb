//! Elementwise work.

use crate::base::DType;
use crate::graph::Type;
use crate::scalar::{Domain, Formula};

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
    /// What the formula is computed in.
    pub fn domain(&self) -> Domain {
        Domain::of(self.types())
    }

    /// Whether it is about truth alone, which all domains hold alike.
    pub fn is_logical(&self) -> bool {
        self.types().all(|d| d == DType::Bool)
    }

    fn types(&self) -> impl Iterator<Item = DType> {
        self.operands.iter().chain([&self.out]).map(|t| t.dtype)
    }

    /// One for each step of the formula and element.
    pub fn flops(&self) -> f64 {
        self.formula.size() as f64 * self.out.shape.numel() as f64
    }
}
