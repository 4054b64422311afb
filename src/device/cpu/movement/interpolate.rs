//! Interpolation, one axis after the other.

use super::super::widen::from_f64;
use crate::base::{DType, Shape, TensorView, TensorViewMut};
use crate::error::Result;
use crate::graph::problem::movement::Taps;

pub(super) fn run(filters: &[Option<Vec<Taps>>], outside: f32, data: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let mut values: Vec<f32> = match data.try_slice::<f32>() {
        Some(v) => v.to_vec(),
        None => data.to_tensor()?.to_f64().into_iter().map(|v| v as f32).collect(),
    };
    let mut shape = data.shape.clone();
    // The last axis first: it shrinks or grows rows while they are contiguous.
    for (axis, filter) in filters.iter().enumerate().rev() {
        if let Some(taps) = filter {
            values = along(&values, &mut shape, axis, taps);
        }
    }
    for (axis, filter) in filters.iter().enumerate() {
        let inner: usize = shape[axis + 1..].iter().product();
        let beyond = |i: usize| filter.as_ref().is_some_and(|taps| taps[i % taps.len()].taps.is_empty());
        let rows = values.chunks_exact_mut(inner.max(1)).enumerate();
        rows.filter(|(i, _)| beyond(*i)).for_each(|(_, row)| row.fill(outside));
    }
    match out.dtype {
        DType::F32 => out.slice::<f32>().copy_from_slice(&values),
        _ => from_f64(out, &values.iter().map(|&v| v.into()).collect::<Vec<_>>()),
    }
    Ok(())
}

fn along(values: &[f32], shape: &mut Shape, axis: usize, taps: &[Taps]) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let (old, new) = (shape[axis], taps.len());
    let mut out = vec![0f32; outer * new * inner];
    for o in 0..outer {
        let from = &values[o * old * inner..(o + 1) * old * inner];
        let into = &mut out[o * new * inner..(o + 1) * new * inner];
        for (row, t) in into.chunks_exact_mut(inner.max(1)).zip(taps) {
            for &(i, w) in &t.taps {
                for (y, x) in row.iter_mut().zip(&from[i * inner..(i + 1) * inner]) {
                    *y += w * x;
                }
            }
        }
    }
    shape[axis] = new;
    out
}
