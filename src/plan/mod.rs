//! From a graph and concrete input shapes to a command list.
//!
//! `walk` follows the graph with every shape known, evaluates what is known before running (constants, shape arithmetic),
//! runs through the branches of If and the iterations of Loop, and gives a list of [`work::Work`]. `fuse` joins scalar work to
//! what precedes it. `sparse` finds weights half of which are zero. `storage` halves what GPUs write between kernels. `place` says which device runs it, `lower` prepares weights and lays out
//! the arena. `trial` runs one command by itself. `program` keeps the plans, one for each combination of input shapes, and runs them in `arenas` that all
//! plans share; `loaded` is what a plan has on its device. See docs/plan.md.

mod arenas;
pub mod control;
pub mod fold;
pub mod fuse;
mod loaded;
pub mod lower;
pub mod place;
pub mod program;
pub mod requests;
mod sparse;
pub mod storage;
pub mod trial;
pub mod walk;
mod weights;
pub mod work;

pub use program::{Label, Plan, PlanOptions, Program, Run};
pub use trial::Trial;
