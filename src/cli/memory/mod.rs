//! `halfbyte memory`.

pub mod command;
pub mod figures;
pub mod files;
pub mod live;
pub mod machine;
pub mod machine_text;
pub mod models;
pub mod outcome;
pub mod steady;
