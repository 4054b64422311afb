//! A choice of elements.

/// A choice of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectProblem {}

impl SelectProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
