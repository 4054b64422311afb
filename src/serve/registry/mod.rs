//! Which version of a model answers a request: versions, aliases, shares, trials with their end, budgets of memory. Knows neither the network
//! nor an engine: see docs/registry.md.

mod canary;
mod memory;
mod settings;
mod shares;
mod status;
mod store;
mod warm;

pub use canary::{Bound, Canary, CanaryStatus, Figures, Outcome, Rules, Verdict};
pub use memory::Footprint;
pub use settings::{Alias, Ended, ModelSettings, Settings, Trial, WhenFull};
pub use status::{Running, State, VersionStatus};
pub use store::{Absent, Chosen, Registry};
pub use warm::{WarmUp, warm_up};
