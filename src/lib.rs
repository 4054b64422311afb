#![doc = include_str!("../README.md")]

pub mod base;
pub mod calibrate;
pub mod device;
pub mod error;
pub mod export;
pub mod graph;
pub mod hardware;
pub mod kernel;
pub mod load;
pub mod memory;
pub mod optimize;
pub mod pass;
pub mod plan;
#[cfg(feature = "serve")]
pub mod retrieval;
pub mod scalar;
pub mod search;
pub mod serve;
pub mod session;

#[cfg(feature = "cli")]
pub mod cli;

pub use base::{DType, Element, Shape, Tensor, TensorView};
pub use error::{Error, Result};
pub use serve::engine::{Engine, Runner};
pub use serve::schedule::Batching;
pub use session::{Model, Options, Outputs, Precision, Report, Session};
