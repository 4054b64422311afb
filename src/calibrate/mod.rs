//! Arithmetic of calibration on plain arrays: Gram matrices, and weights reconstructed by them.

pub mod cholesky;
pub mod gram;
pub mod reconstruct;
