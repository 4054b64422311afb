//! A movement of elements.

/// A movement of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveProblem {}

impl MoveProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
