//! Elements chosen along each axis by tables.

use super::walk::{Axis, Walk, over};
use crate::base::Tensor;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::error::Result;

pub(super) fn launches(call: &Call, maps: &[Option<Vec<usize>>]) -> Result<Vec<Launch>> {
    let (data, out) = (call.input(0)?, call.output(0)?);
    let short = |(axis, m): (usize, &Option<Vec<usize>>)| {
        let size = out.shape.get(axis).copied().unwrap_or(0);
        m.as_ref().is_some_and(|m| m.len() != size || m.iter().any(|&i| i >= data.shape[axis]))
    };
    if maps.len() != data.shape.rank() || out.shape.rank() != maps.len() || maps.iter().enumerate().any(short) {
        return Err(failed("maps that do not fit the tensors"));
    }
    let strides = data.shape.strides();
    let mut tables: Vec<u32> = Vec::new();
    let mut walk = Walk::default();
    for (axis, map) in maps.iter().enumerate() {
        // A table is named by 1 more than where it starts: 0 is none.
        let table = map.as_ref().map_or(0, |_| tables.len() as i64 + 1);
        tables.extend(map.iter().flatten().map(|&i| i as u32));
        walk.push(Axis { size: out.shape[axis], steps: [strides[axis] as i64, table], joins: map.is_none() });
    }
    let size = data.dtype.size_bytes();
    let width = walk.width(size, 1, &[]);
    let walk = walk.widened(width, 1);
    tables.resize(tables.len().max(1), 0);
    let pointers = [Arg::Pointer(Pointer::Output(0, 0)), Arg::Pointer(Pointer::Input(0, 0)), Arg::Table(Tensor::vector(&tables))];
    let numbers = [Arg::U32(walk.elements() as u32), walk.rank(), walk.argument()?];
    Ok(vec![over(&format!("mapped{}", size * width), walk.elements(), pointers.into_iter().chain(numbers).collect())])
}
