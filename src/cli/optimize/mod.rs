//! `halfbyte optimize`.

pub mod charts;
pub mod command;
pub mod page;
pub mod report;
pub mod splits;
