//! Elements by index.

use std::sync::Arc;

use super::walk::{AXES, Walk, over};
use crate::base::{DType, Shape};
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::scalar::stored;
use crate::error::Result;
use crate::graph::Type;
use crate::scalar::arg;

/// Integers that a kernel reads as i32 or i64.
pub(super) struct Integers {
    pub pointer: Pointer,
    /// Whether they are i64: the kernel's parameter `wide`.
    pub wide: Arg,
    /// What makes them so, if they are of another type.
    pub before: Vec<Launch>,
}

/// Scratch bytes that integers of this type need.
pub(super) fn scratch_bytes(ty: &Type) -> usize {
    if is_direct(ty.dtype) { 0 } else { ty.shape.numel() * DType::I64.size_bytes() }
}

fn is_direct(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64 | DType::U64)
}

/// Input `i` as integers; of other types than i32 and i64 by way of the scratch at `at`. Floats are truncated.
pub(super) fn integers(call: &Call, i: usize, at: usize) -> Result<Integers> {
    let ty = call.input(i)?;
    let own = Integers { pointer: Pointer::Input(i, 0), wide: Arg::U32(u32::from(ty.dtype != DType::I32)), before: Vec::new() };
    if is_direct(ty.dtype) || ty.shape.numel() == 0 {
        return Ok(own);
    }
    let out = Type::new(DType::I64, ty.shape.clone());
    let finish = Arc::new(Finish::new(None, &arg(0), std::slice::from_ref(ty), &out)?);
    let pointer = Pointer::Scratch(at as u64);
    Ok(Integers { pointer, before: vec![stored(&finish, ty.shape.numel(), pointer, &[Pointer::Input(i, 0)])], ..own })
}

/// What places by index are made from: the parameters of kernels/lib/index.j2.
pub(super) struct Places<'a> {
    pub indices: &'a Integers,
    /// Steps in elements, and from one index to the next.
    pub walk: &'a Walk<2>,
    /// Size of the axis and step of each index of a tuple.
    pub tuple: &'a [(usize, i64)],
}

impl Places<'_> {
    pub fn arguments(&self) -> Result<Vec<Arg>> {
        if self.tuple.len() > AXES {
            return Err(failed("tuples of more than 8 indices"));
        }
        let pair = |i: usize| self.tuple.get(i).map_or([0, 0], |t| [t.0 as u32, t.1 as u32]).map(Arg::U32);
        let tuple = Arg::Block((0..AXES).flat_map(pair).collect());
        Ok(vec![
            Arg::Pointer(self.indices.pointer),
            Arg::U32(self.walk.elements() as u32),
            self.walk.rank(),
            Arg::U32(self.tuple.len() as u32),
            self.indices.wide.clone(),
            Arg::Pointer(Pointer::Status),
            self.walk.argument()?,
            tuple,
        ])
    }
}

/// Output elements in the order of `walk`.
fn gathered(call: &Call, walk: Walk<2>, tuple: &[(usize, i64)]) -> Result<Vec<Launch>> {
    let (data, out) = (call.input(0)?, call.output(0)?);
    if walk.elements() != out.shape.numel() || data.dtype != out.dtype {
        return Err(failed("a gather whose output does not fit its inputs"));
    }
    let indices = integers(call, 1, 0)?;
    let steps: Vec<i64> = tuple.iter().map(|t| t.1).collect();
    let size = data.dtype.size_bytes();
    let width = walk.width(size, 1, &steps);
    let walk = walk.widened(width, 1);
    let tuple: Vec<_> = tuple.iter().map(|t| (t.0, t.1 / width as i64)).collect();
    let mut args = [Pointer::Output(0, 0), Pointer::Input(0, 0)].map(Arg::Pointer).to_vec();
    args.extend(Places { indices: &indices, walk: &walk, tuple: &tuple }.arguments()?);
    let mut launches = indices.before;
    launches.push(over(&format!("gather{}", size * width), walk.elements(), args));
    Ok(launches)
}

pub(super) fn gather(call: &Call, axis: usize) -> Result<Vec<Launch>> {
    let (data, at) = (&call.input(0)?.shape, call.input(1)?.shape.numel());
    let run = data[axis + 1..].iter().product::<usize>();
    let slab = (run * data[axis]) as i64;
    let walk = Walk::new([(data[..axis].iter().product(), [slab, 0]), (at, [0, 1]), (run, [1, 0])]);
    gathered(call, walk, &[(data[axis], run as i64)])
}

/// A tensor of indices as steps in `data`, without those along `axis`, which the indices are of.
pub(super) fn elements_of(data: &Shape, indices: &Shape, axis: usize) -> Result<Walk<2>> {
    if data.rank() != indices.rank() {
        return Err(failed("indices of another rank than the data"));
    }
    let (steps, numbers) = (data.strides(), indices.strides());
    let step = |i: usize| if i == axis { 0 } else { steps[i] as i64 };
    Ok(Walk::new((0..data.rank()).map(|i| (indices[i], [step(i), numbers[i] as i64]))))
}

pub(super) fn gather_elements(call: &Call, axis: usize) -> Result<Vec<Launch>> {
    let (data, indices) = (&call.input(0)?.shape, &call.input(1)?.shape);
    if (0..data.rank().min(indices.rank())).any(|i| i != axis && indices[i] > data[i]) {
        return Err(failed("the indices are larger than the data"));
    }
    gathered(call, elements_of(data, indices, axis)?, &[(data[axis], data.strides()[axis] as i64)])
}

pub(super) fn gather_nd(call: &Call, batch: usize) -> Result<Vec<Launch>> {
    let (data, indices) = (&call.input(0)?.shape, &call.input(1)?.shape);
    let depth = indices.last().copied().unwrap_or(0);
    let (strides, lead) = (data.strides(), indices.rank().saturating_sub(1));
    let run: usize = data[batch + depth..].iter().product();
    let batches: usize = indices[..batch].iter().product();
    if data[..batch] != indices[..batch] {
        return Err(failed("the batch axes differ"));
    }
    let each: usize = indices[batch..lead].iter().product();
    let slab = data[batch..].iter().product::<usize>() as i64;
    let (d, per) = (depth as i64, (depth * each) as i64);
    let walk = Walk::new([(batches, [slab, per]), (each, [0, d]), (run, [1, 0])]);
    let tuple: Vec<_> = (batch..batch + depth).map(|a| (data[a], strides[a] as i64)).collect();
    gathered(call, walk, &tuple)
}
