//! Reductions, softmax and normalisations.

use crate::base::{DType, Shape};
use crate::graph::Type;

/// How the elements of a group become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fold {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    LogSum,
    LogSumExp,
    SumSquare,
}

/// The three operators that turn scores into shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftmaxKind {
    /// `exp(x) / sum(exp(x))`.
    Softmax,
    /// Its logarithm.
    LogSoftmax,
    /// 1 at the first maximum, 0 elsewhere.
    Hardmax,
}

/// A tensor seen as `[outer, len, inner]`, worked on along `len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rows {
    pub outer: usize,
    pub len: usize,
    pub inner: usize,
}

impl Rows {
    /// `shape` along `axis`.
    pub fn along(shape: &Shape, axis: usize) -> Self {
        Self::span(shape, axis, axis + 1)
    }

    /// `shape` along the axes `from..to` taken as one.
    pub fn span(shape: &Shape, from: usize, to: usize) -> Self {
        let product = |dims: &[usize]| dims.iter().product();
        Rows { outer: product(&shape[..from]), len: product(&shape[from..to]), inner: product(&shape[to..]) }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.outer * self.inner
    }

    /// First element of row `r`, whose elements follow in steps of `inner`.
    pub fn start(&self, r: usize) -> usize {
        r / self.inner * self.len * self.inner + r % self.inner
    }
}

/// Neighbouring axes merged: sizes, and whether each is reduced. Axes of size 1 are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups(pub Vec<(usize, bool)>);

impl Groups {
    /// `shape` with the axes in `reduced` marked.
    pub fn new(shape: &Shape, reduced: &[usize]) -> Self {
        let mut groups: Vec<(usize, bool)> = Vec::new();
        for (axis, &dim) in shape.iter().enumerate().filter(|(_, d)| **d != 1) {
            let flag = reduced.contains(&axis);
            match groups.last_mut() {
                Some((size, f)) if *f == flag => *size *= dim,
                _ => groups.push((dim, flag)),
            }
        }
        Groups(groups)
    }

    /// The groups as one run of reduced elements between kept ones, when they are so.
    pub fn rows(&self) -> Option<Rows> {
        let rows = |outer, len, inner| Some(Rows { outer, len, inner });
        match self.0[..] {
            [] => rows(1, 1, 1),
            [(n, false)] => rows(n, 1, 1),
            [(n, true)] => rows(1, n, 1),
            [(outer, false), (n, true)] => rows(outer, n, 1),
            [(n, true), (inner, false)] => rows(1, n, inner),
            [(outer, false), (n, true), (inner, false)] => rows(outer, n, inner),
            _ => None,
        }
    }

    /// Offsets of all elements of the groups whose mark is `reduced`, in row-major order.
    pub fn offsets(&self, reduced: bool) -> Vec<usize> {
        let mut offsets = vec![0];
        let mut stride = self.0.iter().map(|g| g.0).product::<usize>();
        for &(size, flag) in &self.0 {
            stride = stride.checked_div(size).unwrap_or(0);
            if flag == reduced {
                offsets = offsets.iter().flat_map(|o| (0..size).map(move |i| o + i * stride)).collect();
            }
        }
        offsets
    }
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias` on contiguous rows: layer, RMS, instance and group normalisation.
/// Inputs: x, then skip and the skip's bias if `skip`, then scale and bias; see [`Normalize::slots`].
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub len: usize,
    /// Whether the mean is subtracted; without it the variance is the mean square.
    pub center: bool,
    /// Added to the variance.
    pub epsilon: f32,
    /// Type of the scale, if there is one.
    pub scale: Option<Type>,
    /// Type of the bias, if there is one.
    pub bias: Option<Type>,
    /// How scale and bias meet the elements.
    pub affine: Affine,
    /// Inputs are x, skip, scale, bias, bias of x: the row is `x + skip + bias of x` (SkipLayerNormalization).
    pub skip: bool,
}

/// Which element of scale and bias belongs to element `j` of row `r`: `r % period * per_row + j / inner`.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// Rows after which the factors repeat.
    pub period: usize,
    /// Factors of one row.
    pub per_row: usize,
    /// Neighbouring elements with the same factor.
    pub inner: usize,
    /// Shape that scale and bias broadcast to; it has `period * per_row` elements.
    pub shape: Shape,
}

impl Normalize {
    /// Input numbers of scale, bias, skip and bias of x.
    pub fn slots(&self) -> [usize; 4] {
        if self.skip { [2, 3, 1, 4] } else { [1, 2, usize::MAX, usize::MAX] }
    }
}

/// Batch normalisation of `[batch, channels, inner]`. Inputs: x, scale, bias, mean, variance.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct BatchNorm {
    pub batch: usize,
    pub channels: usize,
    pub inner: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Weight of the old statistics in the new ones.
    pub momentum: f32,
    /// Statistics come from x; outputs 1 and 2 are the running ones.
    pub training: bool,
}

/// What is done along the rows.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum ReduceKind {
    /// One element for each kept index.
    Fold {
        fold: Fold,
        groups: Groups,
    },
    /// Index of the largest (or smallest) element, as i64; of equal ones the first, or the last.
    Arg {
        rows: Rows,
        max: bool,
        last: bool,
    },
    Softmax {
        rows: Rows,
        kind: SoftmaxKind,
    },
    /// Division by the 1-norm or 2-norm; rows of norm 0 stay.
    LpNormalize {
        rows: Rows,
        p: u8,
    },
    CumSum {
        rows: Rows,
        exclusive: bool,
        reverse: bool,
    },
    Normalize(Normalize),
    /// `(x - mean) / (deviation + epsilon)` over the reduced groups.
    Standardize {
        groups: Groups,
        epsilon: f64,
    },
    BatchNorm(BatchNorm),
    /// One scale and zero point for the whole tensor: outputs u8, f32 scale, u8 zero point.
    DynamicQuantize,
    /// Softmax of dequantised rows, quantised again. Inputs: x, x scale, x zero point, y scale, y zero point.
    QuantizedSoftmax {
        rows: Rows,
    },
}

/// A reduction, softmax or normalisation of input 0.
#[derive(Debug, Clone, PartialEq)]
pub struct ReduceProblem {
    /// Input 0.
    pub x: Type,
    /// Element types of all outputs.
    pub out: Vec<DType>,
    /// What is done.
    pub kind: ReduceKind,
}

impl ReduceProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        let each = match &self.kind {
            ReduceKind::Fold { .. } | ReduceKind::Arg { .. } | ReduceKind::CumSum { .. } => 1.0,
            ReduceKind::BatchNorm(_) | ReduceKind::DynamicQuantize => 3.0,
            _ => 8.0,
        };
        each * self.x.shape.numel() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_axes_merge() {
        let groups = Groups::new(&Shape::from([2, 3, 1, 4, 5]), &[1, 3]);
        assert_eq!(groups.0, [(2, false), (12, true), (5, false)]);
        assert_eq!(groups.rows(), Some(Rows { outer: 2, len: 12, inner: 5 }));
        assert_eq!(Groups::new(&Shape::from([2, 3, 4]), &[0, 2]).rows(), None);
        assert_eq!(Groups::new(&Shape::scalar(), &[]).rows().map(|r| r.count()), Some(1));
    }

    #[test]
    fn offsets_cover_each_element_once() {
        let groups = Groups::new(&Shape::from([2, 3, 4]), &[0, 2]);
        let (kept, reduced) = (groups.offsets(false), groups.offsets(true));
        let mut all: Vec<usize> = kept.iter().flat_map(|k| reduced.iter().map(move |r| k + r)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..24).collect::<Vec<_>>());
        let empty = Groups::new(&Shape::from([2, 0, 4]), &[1]);
        assert_eq!((empty.offsets(false).len(), empty.offsets(true).len()), (8, 0));
    }
}
