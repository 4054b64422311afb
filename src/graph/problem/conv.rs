//! A convolution.

use super::EpilogueSpec;

/// A convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvProblem {
    /// Scalar work on each result before it is stored.
    pub epilogue: Option<EpilogueSpec>,
}

impl ConvProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
