//! Choices of elements.

use crate::graph::Type;

/// A choice of elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectProblem {
    /// Which.
    pub selection: Selection,
    /// Type of input 0.
    pub x: Type,
    /// Types of the outputs, wanted or not.
    pub outputs: Vec<Type>,
}

/// A choice of elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// The `k` largest or smallest elements along an axis, and where they are. Equal elements: the first comes first.
    TopK {
        /// Of the input.
        axis: usize,
        /// How many.
        k: usize,
        /// Largest, else smallest.
        largest: bool,
    },
    /// Row-major positions of the elements that are not zero, one row for each axis.
    NonZero,
    /// Slices along the axis (of the flattened input when `None`) where input 1 is true.
    Compress {
        /// Of input 0.
        axis: Option<usize>,
    },
    /// Boxes kept by greedy non-maximum suppression, as (batch, class, box).
    NonMaxSuppression(Nms),
}

/// Parameters of non-maximum suppression.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Nms {
    /// Boxes are (x centre, y centre, width, height), else two corners (y, x, y, x).
    pub centred: bool,
    pub max_per_class: usize,
    pub iou_threshold: f32,
    /// Boxes must score above this, if given.
    pub score_threshold: Option<f32>,
}

impl Nms {
    /// Boxes kept, best first in each class: (batch, class, box). `boxes` is batches x boxes x 4, `scores` batches x classes x boxes.
    /// Source: ONNX, NonMaxSuppression.
    pub fn select(&self, boxes: &[f32], scores: &[f32], [batches, classes, count]: [usize; 3]) -> Vec<[i64; 3]> {
        let mut kept = Vec::new();
        for b in 0..batches {
            let boxes: Vec<[f32; 4]> =
                boxes[b * count * 4..(b + 1) * count * 4].chunks_exact(4).map(|c| self.corners(c)).collect();
            for c in 0..classes {
                let scores = &scores[(b * classes + c) * count..][..count];
                let mut order: Vec<usize> = (0..count).filter(|&i| self.score_threshold.is_none_or(|t| scores[i] > t)).collect();
                order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
                let mut own: Vec<usize> = Vec::new();
                for i in order {
                    if own.len() >= self.max_per_class {
                        break;
                    }
                    if own.iter().all(|&j| overlap(&boxes[i], &boxes[j]) <= self.iou_threshold) {
                        own.push(i);
                    }
                }
                kept.extend(own.into_iter().map(|i| [b as i64, c as i64, i as i64]));
            }
        }
        kept
    }

    /// (low, low, high, high).
    fn corners(&self, c: &[f32]) -> [f32; 4] {
        if self.centred {
            return [c[0] - c[2] / 2.0, c[1] - c[3] / 2.0, c[0] + c[2] / 2.0, c[1] + c[3] / 2.0];
        }
        [c[0].min(c[2]), c[1].min(c[3]), c[0].max(c[2]), c[1].max(c[3])]
    }
}

/// Intersection over union.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let area = |r: &[f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let common = side(0) * side(1);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}
