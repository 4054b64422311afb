//! Arithmetic of calibration on plain arrays: ranges, Gram matrices, weights reconstructed by them, and how far answers of a changed model are
//! from the original's.

pub mod channels;
pub mod cholesky;
mod clip;
pub mod compare;
pub mod gram;
pub mod low_rank;
mod observe;
mod paired;
pub mod reconstruct;
mod score;

pub use clip::{Calibrator, range};
pub use observe::Observed;
pub use paired::Paired;
pub use score::{Answer, Metric};
