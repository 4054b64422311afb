//! The `halfbyte` command line.

pub mod args;
pub mod bench;
pub mod bench_gemm;
pub mod bench_memory;
pub mod compare;
pub mod convert;
pub mod graph_traces;
pub mod inputs;
pub mod inspect;
pub mod interrupt;
pub mod kernels;
#[cfg(feature = "cuda")]
pub mod load;
pub mod measurement;
pub mod memory;
pub mod npz;
pub mod output;
pub mod probe;
pub mod problems;
pub mod progress;
pub mod run;
pub mod suite;
pub mod trace;
pub mod tune;
pub mod vary;
