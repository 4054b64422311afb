//! The scheduler and its peers on a virtual clock: arrivals, devices, an exact offline optimum, and the table that compares them.

pub mod arrivals;
mod baselines;
mod device;
mod measure;
mod oracle;
mod run;

pub use baselines::Baseline;
pub use device::Device;
pub use measure::{Contender, Figures, Row, Study, contenders, rows};
pub use oracle::{fewest_lost, highest_rate};
pub use run::{Outcome, run_baseline, run_scheduler};
