//! Models and sessions.

mod model;
mod options;
mod outputs;
mod report;
mod session;

pub use model::Model;
pub use options::{Options, Precision};
pub use outputs::Outputs;
pub use report::{NodeReport, Report};
pub use session::Session;
