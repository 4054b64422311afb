//! Movements of elements.

use crate::base::layout::Layout;
use crate::graph::Type;

/// Elements copied from a part of an input to a part of an output.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Which input.
    pub input: usize,
    /// Where they lie in it.
    pub from: Layout,
    /// Which output.
    pub output: usize,
    /// Where they go; of the same shape.
    pub to: Layout,
}

/// How new elements meet old ones in a scatter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

/// What one output element of an axis is a weighted sum of.
#[derive(Debug, Clone, PartialEq)]
pub struct Taps {
    /// Input positions with their weights.
    pub taps: Vec<(usize, f32)>,
}

/// A movement of elements of tensors of given types.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveProblem {
    /// What goes where.
    pub movement: Movement,
    /// Types of the inputs.
    pub inputs: Vec<Option<Type>>,
    /// Types of the outputs, wanted or not.
    pub outputs: Vec<Type>,
}

impl MoveProblem {
    /// Bytes of the outputs, which are written, and of as many elements or, where there are fewer, all of the inputs, which are read.
    pub fn bytes(&self) -> f64 {
        let of = |t: &Type| (t.shape.numel() * t.dtype.size_bytes()) as f64;
        let written: f64 = self.outputs.iter().map(of).sum();
        written + self.inputs.iter().flatten().map(|t| of(t).min(written)).sum::<f64>()
    }
}

/// A movement of elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Movement {
    /// Strided copies. `fill` is written first: the elements of this input (one element), or zeros.
    Copy {
        /// The copies.
        pieces: Vec<Piece>,
        /// Whether some output elements belong to no piece.
        fill: Option<Option<usize>>,
    },
    /// `out[i, j, ..] = in[maps[0][i], maps[1][j], ..]`; `None` is the identity.
    Axes(Vec<Option<Vec<usize>>>),
    /// Interpolation along each axis in turn, in f32; integers are truncated.
    Interpolate {
        /// For each axis the taps of each output position; `None` leaves an axis alone.
        axes: Vec<Option<Vec<Taps>>>,
        /// What elements become whose position on some axis has no taps: it lies outside the input.
        outside: f32,
    },
    /// `Gather`: rows along the axis by the indices in input 1.
    Gather {
        /// Of input 0.
        axis: usize,
    },
    /// `GatherElements`.
    GatherElements {
        /// Of input 0.
        axis: usize,
    },
    /// `GatherND`.
    GatherNd {
        /// Leading axes shared by data and indices.
        batch_dims: usize,
    },
    /// `ScatterElements`: inputs data, indices, updates.
    ScatterElements {
        /// Of input 0.
        axis: usize,
        /// How elements meet.
        reduction: Reduction,
    },
    /// `ScatterND`: inputs data, indices, updates.
    ScatterNd {
        /// How elements meet.
        reduction: Reduction,
    },
    /// `Trilu`: zeros below (upper) or above the diagonal `k`.
    Trilu {
        /// Keep the upper triangle.
        upper: bool,
        /// Diagonal.
        k: i64,
    },
    /// `OneHot`: inputs indices, depth, values (off, on).
    OneHot {
        /// Of the output.
        axis: usize,
        /// Size of that axis.
        depth: usize,
    },
    /// `ReverseSequence`: inputs data, lengths.
    ReverseSequence {
        /// Of the sequences.
        batch_axis: usize,
        /// Along a sequence.
        time_axis: usize,
    },
}
