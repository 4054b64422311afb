//! A matrix product.

use super::EpilogueSpec;

/// A matrix product.
#[derive(Debug, Clone, PartialEq)]
pub struct GemmProblem {
    /// Scalar work on each result before it is stored.
    pub epilogue: Option<EpilogueSpec>,
}

impl GemmProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
