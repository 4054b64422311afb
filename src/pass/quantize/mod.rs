//! Graphs whose products and convolutions work on integers, written in standard operators.

mod layers;
mod rewrite;
mod smooth;
mod weights;

pub use layers::{Kind, Layer, layers};
pub use rewrite::{Affine, Scheme, quantize};
pub use smooth::{factors, smooth};
pub use weights::{Stored, round_weights};
