//! A pooling.

/// A pooling.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolProblem {}

impl PoolProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        0.0
    }
}
