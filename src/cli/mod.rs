//! The `halfbyte` command line.

pub mod args;
pub mod bench;
pub mod bench_gemm;
pub mod inspect;
pub mod kernels;
pub mod npz;
pub mod output;
pub mod probe;
pub mod run;
pub mod suite;
pub mod trace;
