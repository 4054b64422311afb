//! Models and sessions.

mod guard;
mod inputs;
mod ladder;
mod model;
mod options;
mod outputs;
mod report;
mod rung;
mod core;

pub use inputs::describe;
pub use model::Model;
pub use options::{Options, Precision};
pub use outputs::Outputs;
pub use report::{NodeReport, Report};
pub use core::Session;
