//! A recurrent network.

/// A recurrent network.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurrentProblem {}

impl RecurrentProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
