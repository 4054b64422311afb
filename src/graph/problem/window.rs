//! Windows moved over images: what convolutions and pooling share.

/// Geometry of a window along each spatial axis, outermost axis first.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Input sizes.
    pub input: Vec<usize>,
    /// Output sizes.
    pub output: Vec<usize>,
    /// Taps.
    pub kernel: Vec<usize>,
    /// Steps, in elements of the input; of a transposed convolution, of the output.
    pub strides: Vec<usize>,
    /// Distances between taps.
    pub dilations: Vec<usize>,
    /// Padding before the image.
    pub pads: Vec<i64>,
    /// Padding after the image, as the operator says.
    pub pads_end: Vec<i64>,
}

impl Window {
    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.input.len()
    }

    /// Where on an axis the window at `position` has a tap: of the image, or in the padding around it.
    pub fn at(&self, axis: usize, position: usize, tap: usize) -> i64 {
        (position * self.strides[axis] + tap * self.dilations[axis]) as i64 - self.pads[axis]
    }

    /// Elements of an input plane.
    pub fn plane(&self) -> usize {
        self.input.iter().product()
    }

    /// Elements of an output plane.
    pub fn pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Taps over all axes.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
}
