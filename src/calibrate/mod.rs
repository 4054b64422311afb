//! Arithmetic of calibration on plain arrays: Gram matrices, and weights reconstructed by them.

pub mod channels;
pub mod cholesky;
pub mod gram;
pub mod low_rank;
pub mod reconstruct;
