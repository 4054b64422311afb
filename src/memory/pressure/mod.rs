//! How short memory is, what is done about it, and what is recommended.

mod advice;
mod level;
mod watch;

pub use advice::{Advice, Code, Facts, Sequence, Workload, recommend};
pub use level::{Action, Excess, Gauge, Level, Thresholds, Usage, actions};
pub use watch::PressureWatch;
