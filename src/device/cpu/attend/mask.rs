//! What a query may see: the mask, the causal limit and the valid keys as one additive row.

use super::super::widen::to_f32;
use crate::base::{DType, Shape, TensorView};
use crate::error::{Error, Result};
use crate::graph::problem::attend::Attention;

/// Adds the masks of one query to its scores.
pub(super) struct Mask<'a> {
    problem: &'a Attention,
    values: Option<std::borrow::Cow<'a, [f32]>>,
    /// Steps of the mask along batch, head, query and key.
    strides: [usize; 4],
    valid: Option<&'a [i64]>,
}

impl<'a> Mask<'a> {
    /// The masks among a launch's inputs.
    pub(super) fn new(p: &'a Attention, inputs: &[Option<TensorView<'a>>]) -> Result<Self> {
        let view = |i: usize| inputs.get(i).and_then(|v| v.as_ref());
        let mut mask = Mask { problem: p, values: None, strides: [0; 4], valid: view(6).map(|v| v.slice::<i64>()) };
        if let (Some(ty), Some(view)) = (&p.mask, view(3)) {
            let full = Shape::from([p.batch, p.q_heads, p.q_len, p.mask_keys]);
            let strides = ty.shape.broadcast_strides(&full);
            let strides = strides.ok_or_else(|| Error::BadInput(format!("mask {} does not fit {full}", ty.shape)))?;
            mask.strides.copy_from_slice(&strides);
            mask.values = Some(match ty.dtype {
                DType::Bool => view.slice::<u8>().iter().map(|&b| if b != 0 { 0.0 } else { f32::NEG_INFINITY }).collect(),
                _ => to_f32(view, 0, view.numel()),
            });
        }
        Ok(mask)
    }

    /// Keys that query `i` of batch entry `b` may see at most: a prefix of all.
    pub(super) fn limit(&self, b: usize, i: usize) -> usize {
        let p = self.problem;
        let valid = self.valid.and_then(|v| v.get(b)).map(|&n| n.clamp(0, p.keys() as i64));
        let mut limit = valid.unwrap_or(p.keys() as i64);
        if p.causal {
            let offset = valid.map_or(p.past_len as i64, |n| n - p.q_len as i64);
            limit = limit.min(i as i64 + offset + 1);
        }
        if p.mask.is_some() {
            limit = limit.min(p.mask_keys as i64);
        }
        limit.max(0) as usize
    }

    /// The mask's elements for one query: the first one and the step from key to key.
    pub(super) fn row(&self, b: usize, h: usize, i: usize) -> Option<(&[f32], usize)> {
        let at = b * self.strides[0] + h * self.strides[1] + i * self.strides[2];
        Some((self.values.as_ref()?.get(at..)?, self.strides[3]))
    }

    /// What is added to the score of key `j`.
    pub(super) fn bias(&self, b: usize, h: usize, i: usize, j: usize) -> f32 {
        if j >= self.limit(b, i) {
            return f32::NEG_INFINITY;
        }
        self.row(b, h, i).map_or(0.0, |(row, step)| row[j * step])
    }
}
