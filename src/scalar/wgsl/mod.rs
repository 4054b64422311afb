//! A formula as a WGSL function, to be put into a shader: the twin of [`super::ptx`].

mod convert;
mod emit;
mod support;

pub use convert::{loaded, stored, value_type, word_type};
pub use emit::{exact_function, function, needs};
pub use support::{support, support_exact, support_f64, support64};
