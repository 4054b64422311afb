//! Arithmetic of calibration on plain arrays: Gram matrices, weights reconstructed by them, and how far answers moved.

pub mod channels;
pub mod cholesky;
pub mod compare;
pub mod gram;
pub mod low_rank;
pub mod reconstruct;
