//! The `halfbyte` command line.

pub mod args;
pub mod npz;
pub mod output;
pub mod run;
pub mod suite;
pub mod trace;
