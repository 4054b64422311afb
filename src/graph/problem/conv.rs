//! Convolutions.

use super::{EpilogueSpec, Window};
use crate::base::{DType, Shape};

/// Which inputs hold the quantisation of an integer convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvQuant {
    /// Zero point of the image: one element.
    pub x_zero: Option<usize>,
    /// Zero points of the weights: one element, or one for each output channel.
    pub w_zero: Option<usize>,
    /// Scales, when the result is quantised again; else it is the i32 sum.
    pub requantize: Option<Requantize>,
}

/// Inputs that hold the scales of a result quantised again.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Requantize {
    pub x_scale: usize,
    /// One element, or one for each output channel.
    pub w_scale: usize,
    pub y_scale: usize,
    pub y_zero: Option<usize>,
}

/// `y[n, m, ..] = sum over c, taps of x[n, c, ..] * w[m, c, taps] + b[m]`; transposed: its adjoint, with `w[c, m, taps]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvProblem {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub m: usize,
    /// Channels are split into this many independent convolutions.
    pub groups: usize,
    /// Where pixels read from; transposed: add to.
    pub window: Window,
    /// The adjoint of a convolution.
    pub transposed: bool,
    /// Type of the image.
    pub x: DType,
    /// Type of the weights.
    pub w: DType,
    /// The type that weights are rounded to before the sums; their own unless their precision is lowered. To f16, a kernel may
    /// round the image as well.
    pub w_as: DType,
    /// Type of the result before the epilogue.
    pub y: DType,
    /// Which input is the image.
    pub x_at: usize,
    /// Which input holds the weights.
    pub w_at: usize,
    /// Which input is the bias.
    pub b_at: Option<usize>,
    /// Inputs of the operator itself; the epilogue's operands follow.
    pub own_inputs: usize,
    /// Of integer convolutions.
    pub quant: Option<ConvQuant>,
    /// Scalar work on each result before it is stored.
    pub epilogue: Option<EpilogueSpec>,
}

impl ConvProblem {
    /// Shape of the output.
    pub fn out_shape(&self) -> Shape {
        [self.n, self.m].into_iter().chain(self.window.output.iter().copied()).collect()
    }

    /// Whether the result is exact sums of integers, which an epilogue is given as f32.
    pub fn gives_sums(&self) -> bool {
        self.quant.as_ref().is_some_and(|q| q.requantize.is_none())
    }

    /// Whether a convolution without an epilogue, of floats or to sums of integers, can take this one: each operand is one number for a
    /// whole channel, or as large as the output, so that rows of pixels can be finished one by one. Transposed ones add to what they store, so
    /// they store f32.
    pub fn takes(&self, epilogue: &EpilogueSpec) -> bool {
        let (shape, spatial) = (self.out_shape(), self.window.rank());
        let by_channel = |s: &Shape| s.iter().rev().take(spatial).all(|&d| d == 1);
        let fits = |s: &Shape| *s == shape || (by_channel(s) && s.broadcast_strides(&shape).is_some());
        let stores = !self.transposed || epilogue.out == DType::F32;
        let gives = self.quant.is_none() || self.gives_sums();
        self.epilogue.is_none() && gives && stores && epilogue.operands.iter().all(|t| fits(&t.shape))
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        let places = if self.transposed { self.window.plane() } else { self.window.pixels() };
        2.0 * (self.n * self.c * self.m / self.groups.max(1)) as f64 * self.window.taps() as f64 * places as f64
    }
}
