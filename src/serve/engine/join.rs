//! Requests as one batch, and their parts of its outputs.

use super::axes::{Axes, PortAxes};
use super::request::Queued;
use crate::base::tensor::size_bytes;
use crate::base::{AlignedBytes, DType, Shape, Tensor, TensorView};
use crate::error::{Error, Result};
use crate::session::Outputs;

/// The sizes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Rows of its requests.
    pub rows: usize,
    /// Rows that it was filled up to.
    pub filled: usize,
    /// Length that its rows were padded to.
    pub length: usize,
}

impl Extent {
    pub fn of(axes: &Axes, group: &[Queued]) -> Extent {
        let rows = group.iter().map(|p| p.checked.rows).sum();
        let length = group.iter().map(|p| p.checked.length).max().unwrap_or(1).next_multiple_of(axes.multiple);
        Extent { rows, filled: if group.len() > 1 { axes.filled(rows) } else { rows }, length }
    }

    /// Whether the batch is the request, as it stands.
    pub fn is_request(&self, group: &[Queued]) -> bool {
        group.len() == 1 && group[0].checked.length == self.length
    }
}

/// Memory that batches are put together in, kept from batch to batch.
#[derive(Default)]
pub(super) struct Buffers(Vec<AlignedBytes>);

impl Buffers {
    fn at(&mut self, index: usize, bytes: usize) -> &mut [u8] {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || AlignedBytes::zeroed(0));
        }
        if self.0[index].len() < bytes {
            self.0[index] = AlignedBytes::zeroed(bytes.next_power_of_two());
        }
        &mut self.0[index][..bytes]
    }
}

/// The inputs of a batch by name. Errors when it would not fit the address space.
pub(super) fn join<'a>(
    axes: &'a Axes,
    group: &'a [Queued],
    extent: &Extent,
    buffers: &'a mut Buffers,
) -> Result<Vec<(&'a str, TensorView<'a>)>> {
    let as_it_stands = extent.is_request(group);
    let mut shapes: Vec<Option<(DType, Shape)>> = Vec::with_capacity(axes.inputs.len());
    for (i, named) in axes.inputs.iter().enumerate() {
        let first = group[0].checked.inputs[i].as_ref();
        let is_joined = !as_it_stands && named.axes != PortAxes::default();
        let Some(first) = first.filter(|_| is_joined) else {
            shapes.push(None);
            continue;
        };
        let shape = whole(first.shape(), named.axes, extent.filled, extent.length);
        let out = buffers.at(i, size_bytes(first.dtype(), &shape)?);
        if group.iter().any(|p| p.checked.length < extent.length) {
            fill(out, first.dtype(), named.pad);
        }
        place(named.axes, i, group, out, &shape);
        shapes.push(Some((first.dtype(), shape)));
    }
    let view = |i: usize| match &shapes[i] {
        Some((dtype, shape)) => Some(TensorView::new(*dtype, shape.clone(), &buffers.0[i][..size_bytes(*dtype, shape).ok()?])),
        None => group[0].checked.inputs[i].as_ref().map(Tensor::view),
    };
    Ok(axes.inputs.iter().enumerate().filter_map(|(i, named)| Some((named.name.as_str(), view(i)?))).collect())
}

/// Puts input `i` of every request behind each other; from the first again until the batch is full.
fn place(axes: PortAxes, i: usize, group: &[Queued], out: &mut [u8], shape: &Shape) {
    let Some(batch) = axes.batch else {
        return group[0].checked.inputs[i]
            .iter()
            .for_each(|t| copy(t.bytes(), t.shape(), out, shape, t.shape(), t.dtype().size_bytes()));
    };
    let mut row = 0;
    for tensor in group.iter().cycle().filter_map(|p| p.checked.inputs[i].as_ref()) {
        if row == shape[batch] {
            break;
        }
        let mut part = tensor.shape().clone();
        part[batch] = part[batch].min(shape[batch] - row);
        let size = tensor.dtype().size_bytes();
        let at = row * inner(shape, batch) * size;
        copy(tensor.bytes(), tensor.shape(), &mut out[at..], shape, &part, size);
        row += part[batch];
    }
}

/// `shape` with other numbers of rows and length.
fn whole(shape: &Shape, axes: PortAxes, rows: usize, length: usize) -> Shape {
    let mut shape = shape.clone();
    for (axis, n) in [(axes.batch, rows), (axes.length, length)] {
        if let Some(axis) = axis {
            shape[axis] = n;
        }
    }
    shape
}

/// Elements between neighbours on an axis.
fn inner(shape: &[usize], axis: usize) -> usize {
    shape[axis + 1..].iter().product()
}

/// Copies a part of both that begins at the start of both; elements are of `size` bytes.
fn copy(from: &[u8], from_shape: &[usize], to: &mut [u8], to_shape: &[usize], part: &[usize], size: usize) {
    if part.contains(&0) {
        return;
    }
    let (a, b) = (inner(from_shape, 0) * size, inner(to_shape, 0) * size);
    if from_shape[1..] == part[1..] && to_shape[1..] == part[1..] {
        return to[..part[0] * a].copy_from_slice(&from[..part[0] * a]);
    }
    for i in 0..part[0] {
        copy(&from[i * a..], &from_shape[1..], &mut to[i * b..], &to_shape[1..], &part[1..], size);
    }
}

/// Every element `value`, as the type has it.
fn fill(out: &mut [u8], dtype: DType, value: f64) {
    let one = element(dtype, value);
    out.chunks_exact_mut(one.len()).for_each(|element| element.copy_from_slice(&one));
}

fn element(dtype: DType, value: f64) -> Vec<u8> {
    use bytemuck::bytes_of;
    match dtype {
        DType::F64 => bytes_of(&value).to_vec(),
        DType::F32 => bytes_of(&(value as f32)).to_vec(),
        DType::F16 => bytes_of(&half::f16::from_f32(value as f32)).to_vec(),
        DType::BF16 => bytes_of(&half::bf16::from_f32(value as f32)).to_vec(),
        // Little endian: an integer's low bytes are the narrower integer.
        DType::U64 => bytes_of(&(value as u64)).to_vec(),
        _ => bytes_of(&(value as i64))[..dtype.size_bytes()].to_vec(),
    }
}

/// Whether every output has the batch's rows, so that they can be told apart. Errors with the one that has not.
pub(super) fn check_rows(axes: &Axes, extent: &Extent, outputs: &Outputs) -> Result<()> {
    for (named, (name, tensor)) in axes.outputs.iter().zip(outputs.iter()) {
        let rows = super::axes::size(tensor.shape(), named.axes.batch);
        if rows != Some(extent.filled) {
            let why = format!(
                "output {name:?} of a batch of {} rows has shape {}: its rows cannot be told apart; say BatchAxis::Absent, or name the axis",
                extent.filled,
                tensor.shape()
            );
            return Err(Error::BadInput(why));
        }
    }
    Ok(())
}

/// Rows `first..first + rows` of an output, cut back to `length`.
pub(super) fn part(tensor: &Tensor, axes: PortAxes, extent: &Extent, first: usize, rows: usize, length: usize) -> Result<Tensor> {
    let shape = tensor.shape();
    // An output whose length the model changed is not cut: nothing says what belongs to the padding.
    let cut = axes.length.filter(|&axis| shape.get(axis) == Some(&extent.length));
    let wanted = whole(shape, PortAxes { length: cut, ..axes }, rows, length);
    let size = tensor.dtype().size_bytes();
    let mut out = Tensor::zeros(tensor.dtype(), wanted.clone())?;
    let from = &tensor.bytes()[axes.batch.map_or(0, |batch| first * inner(shape, batch) * size)..];
    copy(from, shape, out.view_mut().bytes, &wanted, &wanted, size);
    Ok(out)
}
