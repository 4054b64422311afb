//! Allocation traces replayed through allocators over a virtual device: peers' policies, re-implemented from their
//! description, beside our own, with no GPU.
//!
//! `trace` holds a trace, `csv` reads one, `workload` lists those that are made (`transformer`, `convnet`, `churn`). `policy` says what an allocator must do; `torch`, `expandable`,
//! `rmm`, `bfc` (TensorFlow and ONNX Runtime) and `cubecl` do it over `device` and `ranges`; `own` is this crate's pool; `peers` lists them. `evaluate` measures. See docs/memory.md.

pub mod bfc;
pub mod churn;
pub mod convnet;
pub mod csv;
pub mod cubecl;
pub mod device;
pub mod evaluate;
pub mod expandable;
pub mod own;
pub mod peers;
pub mod policy;
pub mod ranges;
pub mod rmm;
pub mod torch;
pub mod trace;
pub mod transformer;
pub mod workload;

pub use evaluate::{Figures, evaluate};
pub use peers::{PolicyDef, all, peers};
pub use policy::{Block, FreeSpace, Policy, Usage};
pub use trace::{Event, Recorder, Trace};
pub use workload::{WorkloadDef, workloads};
