//! A reduction, softmax or normalisation.

/// A reduction, softmax or normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct ReduceProblem {}

impl ReduceProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
