//! Elements by index.

use super::run::error;
use crate::base::{TensorView, TensorViewMut};
use crate::device::cpu::gemm::blocks::wide;
use crate::device::cpu::share;
use crate::error::Result;

/// Rows of one task.
const TASK_ROWS: usize = 64;
/// Bytes below which one thread is faster than two.
const PARALLEL_BYTES: usize = 256 << 10;

/// Indices as numbers within `0..size`, negative ones counted from the end.
pub(super) fn indices(view: &TensorView, size: usize) -> Result<Vec<usize>> {
    let wide: Vec<i64> = match (view.try_slice::<i64>(), view.try_slice::<i32>()) {
        (Some(v), _) => v.to_vec(),
        (_, Some(v)) => v.iter().map(|&i| i.into()).collect(),
        _ => view.to_tensor()?.to_i64().ok_or_else(|| error("indices must be integers"))?,
    };
    wide.into_iter().map(|i| place(i, size)).collect()
}

pub(super) fn place(i: i64, size: usize) -> Result<usize> {
    let at = if i < 0 { i + size as i64 } else { i };
    if (0..size as i64).contains(&at) { Ok(at as usize) } else { Err(error(format!("index {i} is outside an axis of {size}"))) }
}

pub(super) fn gather(axis: usize, data: &TensorView, at: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let at = indices(at, data.shape[axis])?;
    let run = data.shape[axis + 1..].iter().product::<usize>() * data.dtype.size_bytes();
    let slab = run * data.shape[axis];
    if run == 0 || at.is_empty() {
        return Ok(());
    }
    for (into, from) in out.bytes.chunks_exact_mut(run * at.len()).zip(data.bytes.chunks_exact(slab)) {
        for (into, &i) in into.chunks_exact_mut(run).zip(&at) {
            into.copy_from_slice(&from[i * run..(i + 1) * run]);
        }
    }
    Ok(())
}

/// Row-major positions in `shape` of a counter, axis by axis.
pub(super) fn unravel(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, &dim) in index.iter_mut().zip(shape).rev() {
        *at = i % dim;
        i /= dim;
    }
    index
}

pub(super) fn elements(axis: usize, data: &TensorView, at: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let size = data.dtype.size_bytes();
    let strides = data.shape.strides();
    let shape = at.shape.clone();
    for (n, i) in indices(at, data.shape[axis])?.into_iter().enumerate() {
        let mut index = unravel(n, &shape);
        index[axis] = i;
        let from: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        let from = data.bytes.get(from * size..(from + 1) * size).ok_or_else(|| error("the indices are larger than the data"))?;
        out.bytes[n * size..(n + 1) * size].copy_from_slice(from);
    }
    Ok(())
}

pub(super) fn nd(batch: usize, data: &TensorView, at: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let depth = at.shape.last().copied().unwrap_or(0);
    let batches: usize = at.shape[..batch].iter().product();
    let run = data.shape[batch + depth..].iter().product::<usize>() * data.dtype.size_bytes();
    let slab: usize = data.shape[batch..].iter().product::<usize>() * data.dtype.size_bytes();
    let positions = tuples(at, depth, &data.shape[batch..batch + depth])?;
    if run == 0 || positions.is_empty() {
        return Ok(());
    }
    let each = positions.len() / batches.max(1);
    for (n, (into, p)) in out.bytes.chunks_exact_mut(run).zip(&positions).enumerate() {
        let from = n / each.max(1) * slab + p * run;
        into.copy_from_slice(data.bytes.get(from..from + run).ok_or_else(|| error("the batch axes differ"))?);
    }
    Ok(())
}

/// Index tuples of `depth` as positions in an array of shape `dims`.
pub(super) fn tuples(at: &TensorView, depth: usize, dims: &[usize]) -> Result<Vec<usize>> {
    let wide = at.to_tensor()?.to_i64().ok_or_else(|| error("indices must be integers"))?;
    if depth == 0 {
        return Ok(vec![0; at.shape[..at.shape.rank().saturating_sub(1)].iter().product()]);
    }
    let position = |t: &[i64]| t.iter().zip(dims).try_fold(0, |sum, (&i, &d)| Ok(sum * d + place(i, d)?));
    wide.chunks_exact(depth).map(position).collect()
}

pub(super) fn axes(maps: &[Option<Vec<usize>>], data: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let size = data.dtype.size_bytes();
    let strides = data.shape.strides();
    let last = out.shape.rank().saturating_sub(1);
    let at = |axis: usize, i: usize| maps[axis].as_ref().map_or(i, |m| m[i]) * strides[axis];
    let row = out.shape.last().copied().unwrap_or(1);
    if out.bytes.is_empty() {
        return Ok(());
    }
    let outer = out.shape[..last].to_vec();
    let source = |mut row: usize| {
        let mut from = 0;
        for (axis, &n) in outer.iter().enumerate().rev() {
            from += at(axis, row % n) * size;
            row /= n;
        }
        from
    };
    let inner = maps.last().and_then(|m| m.as_ref());
    let is_double = inner.is_some_and(|m| m.len().is_multiple_of(2) && m.iter().enumerate().all(|(i, &p)| p == i / 2));
    // A task is several rows: those that repeat the row before are copied from it.
    let task = |t: usize, rows: &mut [u8]| {
        let mut before = None;
        for i in 0..rows.len() / (row * size) {
            let from = source(t * TASK_ROWS + i);
            let (done, rest) = rows.split_at_mut(i * row * size);
            let into = &mut rest[..row * size];
            match (&inner, before == Some(from)) {
                (_, true) => into.copy_from_slice(&done[done.len() - row * size..]),
                (None, _) => into.copy_from_slice(&data.bytes[from..from + row * size]),
                (Some(places), _) => match size {
                    1 => pick::<1>(&data.bytes[from..], places, is_double, into),
                    2 => pick::<2>(&data.bytes[from..], places, is_double, into),
                    4 => pick::<4>(&data.bytes[from..], places, is_double, into),
                    _ => pick::<8>(&data.bytes[from..], places, is_double, into),
                },
            }
            before = Some(from);
        }
    };
    if out.bytes.len() >= PARALLEL_BYTES && rayon::current_num_threads() > 1 {
        share::parts(out.bytes, TASK_ROWS * row * size, task);
    } else {
        out.bytes.chunks_mut(TASK_ROWS * row * size).enumerate().for_each(|(t, rows)| task(t, rows));
    }
    Ok(())
}

/// Elements of `SIZE` bytes at the places; each twice in a form that becomes vector code, as images are enlarged most.
fn pick<const SIZE: usize>(from: &[u8], places: &[usize], is_double: bool, into: &mut [u8]) {
    let (from, into) = (from.as_chunks::<SIZE>().0, into.as_chunks_mut::<SIZE>().0);
    if is_double {
        return wide(|| into.as_chunks_mut::<2>().0.iter_mut().zip(from).for_each(|(pair, &v)| *pair = [v; 2]));
    }
    into.iter_mut().zip(places).for_each(|(e, &p)| *e = from[p]);
}

pub(super) fn one_hot(axis: usize, depth: usize, at: &TensorView, values: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let size = out.dtype.size_bytes();
    let (off, on) = values.bytes.split_at(size);
    out.bytes.chunks_exact_mut(size).for_each(|e| e.copy_from_slice(off));
    let inner: usize = at.shape[axis.min(at.shape.rank())..].iter().product();
    for (n, v) in at.to_tensor()?.to_f64().into_iter().enumerate() {
        let v = v as i64;
        let i = if v < 0 { v + depth as i64 } else { v };
        // The specification: an index outside the depth gives "off" everywhere.
        if (0..depth as i64).contains(&i) {
            let into = ((n / inner * depth + i as usize) * inner + n % inner) * size;
            out.bytes[into..into + size].copy_from_slice(&on[..size]);
        }
    }
    Ok(())
}

pub(super) fn reverse_sequence(
    batch: usize,
    time: usize,
    data: &TensorView,
    lengths: &TensorView,
    out: &mut TensorViewMut,
) -> Result<()> {
    let size = data.dtype.size_bytes();
    let lengths = lengths.to_tensor()?.to_i64().ok_or_else(|| error("lengths must be integers"))?;
    let strides = data.shape.strides();
    for (n, element) in out.bytes.chunks_exact_mut(size).enumerate() {
        let mut index = unravel(n, &data.shape);
        let length = *lengths.get(index[batch]).ok_or_else(|| error("a length is missing"))? as usize;
        if index[time] < length.min(data.shape[time]) {
            index[time] = length.min(data.shape[time]) - 1 - index[time];
        }
        let from: usize = index.iter().zip(&strides).map(|(i, s)| i * s * size).sum();
        element.copy_from_slice(&data.bytes[from..from + size]);
    }
    Ok(())
}
