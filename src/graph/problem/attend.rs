//! Scaled dot-product attention.

/// Scaled dot-product attention.
#[derive(Debug, Clone, PartialEq)]
pub struct AttendProblem {}

impl AttendProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
