//! Exact search: the vectors nearest to queries, as a matrix product of which the largest results of each row are kept.

mod index;
pub(crate) mod nearest;
mod part;

pub use index::{Found, Index, IndexOptions, Metric, Storage};
