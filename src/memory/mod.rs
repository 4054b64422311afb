//! Memory: the pool of a device, the planning of a run's arena, and traces replayed through allocators.

mod backing;
pub mod bins;
mod block;
pub mod budget;
mod cache;
mod core;
mod device;
mod error;
mod granule;
mod grow;
pub mod heap;
mod ladder;
mod launch;
mod options;
pub mod plan;
mod pool;
pub mod provider;
pub mod replay;
mod share;
mod slab;
mod span;
mod stats;
mod sync;

pub use block::{Block, Buffer};
pub use budget::Account;
pub use device::DriverCalls;
pub use error::{Cause, OutOfMemory};
pub use ladder::{Relief, Rung, RungCount, Shortage};
pub use launch::Launch;
pub use options::Options;
pub use pool::{Arena, Pool};
pub use provider::{Provider, StreamId};
pub use stats::Stats;
