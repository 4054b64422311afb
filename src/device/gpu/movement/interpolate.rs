//! Weighted sums along axes: two in a launch, the last ones first, with f32 between launches.

use std::sync::Arc;

use super::walk::{Axis, Walk, over};
use crate::base::{DType, Shape, Tensor};
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::error::Result;
use crate::graph::Type;
use crate::graph::problem::movement::Taps;

type Filters = [Option<Vec<Taps>>];

/// The interpolated axes of each launch in order; no axis at all still converts.
fn passes(filters: &Filters) -> Vec<Vec<usize>> {
    let axes: Vec<usize> = (0..filters.len()).filter(|&a| filters[a].is_some()).collect();
    axes.rchunks(2).map(<[usize]>::to_vec).collect()
}

/// Shape after the axes are interpolated.
fn resized(shape: &Shape, filters: &Filters, axes: &[usize]) -> Shape {
    let size = |(i, &n): (usize, &usize)| filters[i].as_ref().filter(|_| axes.contains(&i)).map_or(n, Vec::len);
    shape.iter().enumerate().map(size).collect()
}

/// Of the results between launches, which take turns in two places.
fn between(shape: &Shape, filters: &Filters) -> Vec<usize> {
    let mut shape = shape.clone();
    let passes = passes(filters);
    let sizes = passes.iter().map(|axes| {
        shape = resized(&shape, filters, axes);
        (shape.numel() * DType::F32.size_bytes()).next_multiple_of(256)
    });
    sizes.take(passes.len().saturating_sub(1)).collect()
}

pub(super) fn scratch_bytes(shape: &Shape, filters: &Filters) -> usize {
    2 * between(shape, filters).into_iter().max().unwrap_or(0)
}

/// Where the taps of each coordinate begin, where the last end, then positions and weights.
fn table(taps: &[Taps]) -> Tensor {
    let mut words = vec![0u32];
    for t in taps {
        words.push(words[words.len() - 1] + t.taps.len() as u32);
    }
    words.extend(taps.iter().flat_map(|t| &t.taps).flat_map(|&(at, weight)| [at as u32, weight.to_bits()]));
    Tensor::vector(&words)
}

/// One of a launch: everything but the last stores f32.
struct Pass<'a> {
    from: Pointer,
    x: Type,
    axes: &'a [usize],
    to: Pointer,
    y: Type,
}

pub(super) fn launches(call: &Call, filters: &Filters, outside: f32) -> Result<Vec<Launch>> {
    let (mut x, out) = (call.input(0)?.clone(), call.output(0)?);
    let inside = |(axis, taps): (usize, &Option<Vec<Taps>>)| {
        let within = |t: &Taps| t.taps.iter().all(|t| t.0 < x.shape[axis]);
        taps.as_ref().is_none_or(|taps| taps.iter().all(within))
    };
    if filters.len() != x.shape.rank() || !filters.iter().enumerate().all(inside) {
        return Err(failed("taps outside the input"));
    }
    let place = scratch_bytes(&x.shape, filters) / 2;
    let (passes, mut from, mut launches) = (passes(filters), Pointer::Input(0, 0), Vec::new());
    for (i, axes) in passes.iter().enumerate() {
        let last = i + 1 == passes.len();
        let y = Type::new(if last { out.dtype } else { DType::F32 }, resized(&x.shape, filters, axes));
        let to = if last { Pointer::Output(0, 0) } else { Pointer::Scratch((i % 2 * place) as u64) };
        launches.push(pass(&Pass { from, x, axes, to, y: y.clone() }, filters)?);
        (from, x) = (to, y);
    }
    if passes.is_empty() {
        // Nothing is interpolated: a conversion through f32.
        launches.push(pass(&Pass { from, x, axes: &[], to: Pointer::Output(0, 0), y: out.clone() }, filters)?);
    }
    for (axis, taps) in filters.iter().enumerate().filter_map(|(a, t)| Some((a, t.as_ref()?))) {
        if taps.iter().any(|t| t.taps.is_empty()) {
            launches.push(beyond(out, axis, taps, outside)?);
        }
    }
    Ok(launches)
}

fn pass(p: &Pass, filters: &Filters) -> Result<Launch> {
    let finish = Arc::new(Finish::epilogue(None, DType::F32, &p.y)?.reading(p.x.dtype));
    let strides = p.x.shape.strides();
    let identity = [Taps { taps: vec![(0, 1.0)] }];
    // Without an axis to interpolate, one of a single coordinate.
    let tables: Vec<(&[Taps], usize)> = match p.axes {
        [] => vec![(&identity, 0)],
        axes => axes.iter().map(|&a| (filters[a].as_deref().unwrap_or(&identity), strides[a])).collect(),
    };
    let part =
        |&(taps, step): &(&[Taps], usize)| [Arg::Table(table(taps)), Arg::U32(taps.len() as u32 + 1), Arg::U32(step as u32)];
    let coordinate = |axis: usize, n: usize| i64::from(p.axes.get(n) == Some(&axis));
    let step = |axis: usize| if p.axes.contains(&axis) { 0 } else { strides[axis] as i64 };
    let sizes = p.y.shape.iter().enumerate();
    let (name, rank, axes) = if p.axes.len() == 2 {
        let walk = Walk::new(sizes.map(|(a, &n)| (n, [step(a), coordinate(a, 0), coordinate(a, 1)])));
        ("interpolate2", walk.rank(), walk.argument()?)
    } else {
        let walk = Walk::new(sizes.map(|(a, &n)| (n, [step(a), coordinate(a, 0)])));
        ("interpolate1", walk.rank(), walk.argument()?)
    };
    let mut args = vec![Arg::Pointer(p.from), Arg::U32(p.y.shape.numel() as u32), rank];
    args.extend(tables.iter().flat_map(part));
    args.push(axes);
    Ok(over(name, p.y.shape.numel(), args).finished(&finish, p.to, &[]))
}

/// Writes what lies outside along an axis.
fn beyond(out: &Type, axis: usize, taps: &[Taps], outside: f32) -> Result<Launch> {
    let finish = Arc::new(Finish::epilogue(None, DType::F32, out)?);
    let axes = out.shape.iter().enumerate().map(|(a, &size)| Axis { size, steps: [i64::from(a == axis)], joins: true });
    let walk = Walk::new(axes.map(|a| (a.size, a.steps)));
    let n = out.shape.numel();
    let args = vec![Arg::Table(table(taps)), Arg::U32(n as u32), walk.rank(), Arg::F32(outside), walk.argument()?];
    Ok(over("outside", n, args).finished(&finish, Pointer::Output(0, 0), &[]))
}
