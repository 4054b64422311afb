//! Ways to hand out memory: blocks of any size, pages of one size, and parts of a block for weights and planned runs.

mod dynamic;
mod pages;
mod part;

pub use dynamic::Arena;
pub use pages::{Page, Pages};
pub use part::{Part, Weights};
