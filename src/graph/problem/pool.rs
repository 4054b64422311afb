//! Pooling.

use super::Window;
use crate::base::DType;

/// What a window becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pooling {
    /// Largest element; NaN where there is one.
    Max {
        /// Output 1 says where it is.
        indices: bool,
        /// They count columns first.
        column_major: bool,
    },
    /// Mean over the elements inside the image, or over the whole window.
    Average {
        /// Count padding as zeros.
        include_pad: bool,
    },
    /// `(sum |x|^p)^(1/p)`.
    Lp {
        /// The norm's order.
        p: i64,
    },
}

/// A window moved over each channel of each image.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolProblem {
    /// What a window becomes.
    pub pooling: Pooling,
    /// Images times channels.
    pub planes: usize,
    /// Where it stands for each output.
    pub window: Window,
    /// Element type.
    pub dtype: DType,
}

impl PoolProblem {
    /// One operation for each tap of each window.
    pub fn flops(&self) -> f64 {
        (self.planes * self.window.pixels() * self.window.taps()) as f64
    }
}
