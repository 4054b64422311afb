//! Graphs whose products and convolutions work on integers, written in standard operators.

mod absorb;
mod rewrite;
mod smooth;
mod weights;

pub use rewrite::{Affine, Scheme, quantize};
pub use smooth::{factors, smooth};
pub use weights::{Bits, Stored};
