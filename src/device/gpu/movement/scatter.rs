//! Elements written by index, in the order of the updates: a list of updates for each place, then the places one by one.

use super::copy::filled;
use super::index::{self, Places, elements_of, integers};
use super::walk::{Walk, over, widest};
use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::error::{Error, Result};
use crate::graph::Type;
use crate::graph::problem::movement::{Movement, Reduction};

/// Scratch: a head for each place, the next of each update, and indices that are not i32 or i64.
struct Scratch {
    heads_bytes: usize,
    next: usize,
    indices: usize,
    bytes: usize,
}

impl Scratch {
    fn new(places: usize, updates: usize, indices: &Type) -> Scratch {
        let heads_bytes = places * 4;
        let next = heads_bytes.next_multiple_of(16);
        let at = next + (updates * 4).next_multiple_of(16);
        Scratch { heads_bytes, next, indices: at, bytes: at + index::scratch_bytes(indices) }
    }
}

/// Elements that the indices are of, and updates.
fn counts(movement: &Movement, data: &Type, indices: &Type) -> (usize, usize) {
    let depth = indices.shape.last().copied().unwrap_or(0);
    match movement {
        Movement::ScatterNd { .. } => {
            (data.shape.iter().take(depth).product(), indices.shape.iter().take(indices.shape.rank().saturating_sub(1)).product())
        }
        _ => (data.shape.numel(), indices.shape.numel()),
    }
}

pub(super) fn scratch_bytes(movement: &Movement, data: &Type, indices: &Type) -> usize {
    let (places, updates) = counts(movement, data, indices);
    Scratch::new(places, updates, indices).bytes
}

pub(super) fn elements(call: &Call, axis: usize, reduction: Reduction) -> Result<Vec<Launch>> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let walk = elements_of(&data.shape, &indices.shape, axis)?;
    let tuple = [(data.shape[axis], data.shape.strides()[axis] as i64)];
    scattered(call, reduction, 1, walk, &tuple, &Movement::ScatterElements { axis, reduction })
}

pub(super) fn nd(call: &Call, reduction: Reduction) -> Result<Vec<Launch>> {
    let (data, indices) = (&call.input(0)?.shape, &call.input(1)?.shape);
    let depth = indices.last().copied().unwrap_or(0);
    let dims = data.get(..depth).ok_or_else(|| failed("the indices are deeper than the data"))?;
    let run: usize = data[depth..].iter().product();
    let step = |i: usize| dims[i + 1..].iter().product::<usize>() as i64;
    let tuple: Vec<_> = (0..depth).map(|i| (dims[i], step(i))).collect();
    let updates: usize = indices[..indices.rank().saturating_sub(1)].iter().product();
    let walk = Walk::new([(updates, [0, depth as i64])]);
    scattered(call, reduction, run, walk, &tuple, &Movement::ScatterNd { reduction })
}

fn scattered(
    call: &Call,
    reduction: Reduction,
    run: usize,
    walk: Walk<2>,
    tuple: &[(usize, i64)],
    movement: &Movement,
) -> Result<Vec<Launch>> {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (places, count) = counts(movement, data, indices);
    if updates.shape.numel() != count * run || data.dtype != updates.dtype {
        return Err(failed("the updates do not fit the indices"));
    }
    let scratch = Scratch::new(places, count, indices);
    let integers = integers(call, 1, scratch.indices)?;
    let last = reduction == Reduction::None;
    let next = Pointer::Scratch(scratch.next as u64);
    let mut launches = integers.before.clone();
    launches.extend(filled(Pointer::Scratch, scratch.heads_bytes, Pointer::Null, 4, u32::MAX));
    if count > 0 {
        let mut args = vec![Arg::Pointer(Pointer::Scratch(0)), Arg::Pointer(next), Arg::U32(places as u32)];
        args.extend(Places { indices: &integers, walk: &walk, tuple }.arguments()?);
        launches.push(over(if last { "scatter_latest" } else { "scatter_link" }, count, args));
    }
    launches.push(if last { latest(data, run)? } else { folded(data, reduction, run, next)? });
    Ok(launches)
}

/// Arguments after the pointers: elements, and the run of a place.
fn numbers(elements: usize, run: usize) -> [Arg; 4] {
    let (multiplier, shift) = magic(run as u32);
    [elements as u32, run as u32, multiplier, shift].map(Arg::U32)
}

fn latest(data: &Type, run: usize) -> Result<Launch> {
    let size = data.dtype.size_bytes();
    let width = widest(size, |w| run.is_multiple_of(w));
    let elements = data.shape.numel() / width;
    let pointers = [Pointer::Output(0, 0), Pointer::Input(0, 0), Pointer::Input(2, 0), Pointer::Scratch(0)].map(Arg::Pointer);
    let args = pointers.into_iter().chain(numbers(elements, run / width)).collect();
    Ok(over(&format!("scatter_last{}", size * width), elements, args))
}

fn folded(data: &Type, reduction: Reduction, run: usize, next: Pointer) -> Result<Launch> {
    let name = match data.dtype {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::I32 => "s32",
        DType::I64 => "s64",
        DType::U8 => "u8",
        DType::I8 => "s8",
        other => return Err(Error::Unsupported { at: "scatter".into(), why: format!("{reduction:?} of {other}") }),
    };
    let how = match reduction {
        Reduction::None => 0,
        Reduction::Add => 1,
        Reduction::Mul => 2,
        Reduction::Max => 3,
        Reduction::Min => 4,
    };
    let pointers = [Pointer::Output(0, 0), Pointer::Input(0, 0), Pointer::Input(2, 0), Pointer::Scratch(0), next];
    let elements = data.shape.numel();
    let args = pointers.map(Arg::Pointer).into_iter().chain([Arg::U32(how)]).chain(numbers(elements, run)).collect();
    Ok(over(&format!("scatter_fold_{name}"), elements, args))
}
