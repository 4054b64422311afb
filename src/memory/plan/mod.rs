//! Where each buffer lies in one arena, decided before anything runs: lifetimes to offsets.
//!
//! `lifetime` says what is placed and checks the answer, `greedy` places quickly, `clique` finds the times that matter, `partial`
//! is a placement under construction, `exact` searches for one within a capacity, and `place` puts them together. See docs/memory.md.

pub mod clique;
pub mod exact;
pub mod greedy;
pub mod lifetime;
pub mod partial;
pub mod place;

pub use lifetime::{Lifetime, check};
pub use place::{Effort, Placement, place};
