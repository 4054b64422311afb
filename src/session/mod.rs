//! Models and sessions.

mod core;
mod devices;
mod guard;
mod inputs;
mod ladder;
mod made;
mod model;
mod opened;
mod options;
mod outputs;
mod report;
mod rung;
mod source;
mod split;
mod tune;

pub use core::Session;
pub use devices::devices;
pub use inputs::{describe, fits};
pub use made::{Sizes, made};
pub use model::{Model, model_name};
pub use options::{Options, Precision};
pub use outputs::Outputs;
pub use report::{NodeReport, Report, Way};
pub use source::OpenDevice;
pub use tune::{Finding, Tuning, tune};
