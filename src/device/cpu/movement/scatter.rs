//! Elements written by index.

use super::gather::{indices, tuples, unravel};
use super::run::error;
use crate::base::{DType, Element, TensorView, TensorViewMut};
use crate::error::Result;
use crate::graph::problem::movement::Reduction;

/// Data, indices, updates.
type Inputs<'a> = [&'a TensorView<'a>; 3];

pub(super) fn elements(axis: usize, reduction: Reduction, [data, at, updates]: Inputs, out: &mut TensorViewMut) -> Result<()> {
    let strides = data.shape.strides();
    let places = indices(at, data.shape[axis])?.into_iter().enumerate().map(|(n, i)| {
        let mut index = unravel(n, &at.shape);
        index[axis] = i;
        index.iter().zip(&strides).map(|(i, s)| i * s).sum()
    });
    scatter(reduction, data, updates, out, &places.collect::<Vec<usize>>(), 1)
}

pub(super) fn nd(reduction: Reduction, [data, at, updates]: Inputs, out: &mut TensorViewMut) -> Result<()> {
    let depth = at.shape.last().copied().unwrap_or(0);
    let dims = data.shape.get(..depth).ok_or_else(|| error("the indices are deeper than the data"))?;
    let run: usize = data.shape[depth..].iter().product();
    let places: Vec<usize> = tuples(at, depth, dims)?.into_iter().map(|p| p * run).collect();
    scatter(reduction, data, updates, out, &places, run)
}

/// Writes runs of `run` elements of `updates` at `places`.
fn scatter(
    reduction: Reduction,
    data: &TensorView,
    updates: &TensorView,
    out: &mut TensorViewMut,
    places: &[usize],
    run: usize,
) -> Result<()> {
    out.bytes.copy_from_slice(data.bytes);
    if updates.numel() != places.len() * run || data.dtype != updates.dtype {
        return Err(error("the updates do not fit the indices"));
    }
    let size = data.dtype.size_bytes();
    if reduction == Reduction::None {
        for (from, &at) in updates.bytes.chunks_exact((run * size).max(1)).zip(places) {
            let into = out.bytes.get_mut(at * size..(at + run) * size);
            into.ok_or_else(|| error("the indices are larger than the data"))?.copy_from_slice(from);
        }
        return Ok(());
    }
    macro_rules! typed {
        ($($d:ident => $t:ty),*) => { match data.dtype {
            $(DType::$d => reduce::<$t>(reduction, updates, out, places, run),)*
            other => Err(crate::Error::Unsupported { at: "scatter".into(), why: format!("{reduction:?} of {other}") }),
        } };
    }
    typed!(F32 => f32, F64 => f64, I32 => i32, I64 => i64, U8 => u8, I8 => i8)
}

fn reduce<T: Element + PartialOrd + std::ops::Add<Output = T> + std::ops::Mul<Output = T>>(
    reduction: Reduction,
    updates: &TensorView,
    out: &mut TensorViewMut,
    places: &[usize],
    run: usize,
) -> Result<()> {
    let values = updates.slice::<T>();
    let into = out.slice::<T>();
    for (from, &at) in values.chunks_exact(run.max(1)).zip(places) {
        let into = into.get_mut(at..at + run).ok_or_else(|| error("the indices are larger than the data"))?;
        for (old, &new) in into.iter_mut().zip(from) {
            *old = match reduction {
                Reduction::None => new,
                Reduction::Add => *old + new,
                Reduction::Mul => *old * new,
                Reduction::Max => {
                    if new > *old {
                        new
                    } else {
                        *old
                    }
                }
                Reduction::Min => {
                    if new < *old {
                        new
                    } else {
                        *old
                    }
                }
            };
        }
    }
    Ok(())
}
