//! Triangles, one-hot vectors and reversed sequences.

use super::index::integers;
use super::walk::{Walk, over};
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::error::Result;

pub(super) fn trilu(call: &Call, upper: bool, k: i64) -> Result<Vec<Launch>> {
    let x = call.input(0)?;
    let rank = x.shape.rank();
    let [rows, columns] = [2, 1].map(|i| rank.checked_sub(i).map_or(1, |i| x.shape[i]));
    let walk = Walk::new([(x.shape.numel() / (rows * columns), [0, 0]), (rows, [1, 0]), (columns, [0, 1])]);
    // Beyond all rows and columns nothing changes any more.
    let k = k.clamp(-(rows as i64) - columns as i64, rows as i64 + columns as i64) as i32;
    let pointers = [Pointer::Output(0, 0), Pointer::Input(0, 0)].map(Arg::Pointer);
    let numbers = [Arg::U32(walk.elements() as u32), walk.rank(), Arg::U32(upper.into()), Arg::U32(k as u32), walk.argument()?];
    let name = format!("trilu{}", x.dtype.size_bytes());
    Ok(vec![over(&name, walk.elements(), pointers.into_iter().chain(numbers).collect())])
}

pub(super) fn one_hot(call: &Call, axis: usize, depth: usize) -> Result<Vec<Launch>> {
    let (at, values, out) = (call.input(0)?, call.input(2)?, call.output(0)?);
    let axis = axis.min(at.shape.rank());
    let inner: usize = at.shape[axis..].iter().product();
    let outer: usize = at.shape[..axis].iter().product();
    if values.dtype != out.dtype || values.shape.numel() < 2 || out.shape.numel() != outer * depth * inner {
        return Err(failed("values or an output that do not fit the indices"));
    }
    let integers = integers(call, 0, 0)?;
    let walk = Walk::new([(outer, [inner as i64, 0]), (depth, [0, 1]), (inner, [1, 0])]);
    let pointers = [Pointer::Output(0, 0), Pointer::Input(2, 0), integers.pointer].map(Arg::Pointer);
    let numbers = [integers.wide, Arg::U32(depth as u32), Arg::U32(walk.elements() as u32), walk.rank(), walk.argument()?];
    let name = format!("one_hot{}", out.dtype.size_bytes());
    let mut launches = integers.before;
    launches.push(over(&name, walk.elements(), pointers.into_iter().chain(numbers).collect()));
    Ok(launches)
}

pub(super) fn reverse(call: &Call, batch: usize, time: usize) -> Result<Vec<Launch>> {
    let (x, lengths) = (call.input(0)?, call.input(1)?);
    let strides = x.shape.strides();
    let fits = batch < x.shape.rank() && time < x.shape.rank() && batch != time;
    if !fits || lengths.shape.numel() < x.shape[batch] {
        return Err(failed("a length is missing"));
    }
    let integers = integers(call, 1, 0)?;
    let counts = |i: usize| [i64::from(i == time), i64::from(i == batch)];
    let walk = Walk::new((0..x.shape.rank()).map(|i| (x.shape[i], counts(i))));
    let (size, step) = (x.dtype.size_bytes(), strides[time]);
    let width = walk.width(size, 0, &[step as i64]);
    let walk = walk.widened(width, 0);
    let pointers = [Pointer::Output(0, 0), Pointer::Input(0, 0), integers.pointer].map(Arg::Pointer);
    let numbers = [
        integers.wide,
        Arg::U32(walk.elements() as u32),
        walk.rank(),
        Arg::U32(x.shape[time] as u32),
        Arg::U32((step / width) as u32),
        walk.argument()?,
    ];
    let mut launches = integers.before;
    launches.push(over(&format!("reverse{}", size * width), walk.elements(), pointers.into_iter().chain(numbers).collect()));
    Ok(launches)
}
