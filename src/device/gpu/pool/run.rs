//! Launches of pooling.

use std::sync::Arc;

use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::movement::walk::{Walk, over};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::pool::Pooling;
use crate::graph::problem::{PoolProblem, Window};
use crate::graph::{Problem, Type};
use crate::scalar::{Formula, arg, constant};

/// Spatial axes at most of the kernels in f32 and of those in f64.
const AXES: [usize; 2] = [3, 6];

fn problem<'a>(call: &'a Call) -> Result<&'a PoolProblem> {
    let Problem::Pool(p) = call.problem else { return Err(failed("not pooling")) };
    let outputs = p.planes * p.window.pixels();
    match call.outputs.iter().flatten().all(|t| t.shape.numel() == outputs) && p.dtype == call.input(0)?.dtype {
        true => Ok(p),
        false => Err(failed("pooling of tensors that do not fit")),
    }
}

/// One thread an output; `wide` in f64.
pub(super) fn windows(call: &Call, wide: bool) -> Result<Vec<Launch>> {
    let p = problem(call)?;
    let elements = p.planes * p.window.pixels();
    let mut launches = Vec::new();
    if elements == 0 {
        return Ok(launches);
    }
    let any = if wide { "_any" } else { "" };
    let (name, option, formula): (String, u32, Formula) = match p.pooling {
        Pooling::Max { .. } => (format!("pool_maximum{any}"), 0, arg(0)),
        Pooling::Average { include_pad } => (format!("pool_average{any}"), include_pad.into(), arg(0)),
        Pooling::Lp { p } => ("pool_norm".into(), p as u32, root(p)),
    };
    let value = if wide { DType::F64 } else { DType::F32 };
    if let Ok(out) = call.output(0) {
        let args = arguments(p, AXES[usize::from(wide)], option, None)?;
        let finish = Arc::new(Finish::new(Some(value), &formula, &[], out)?.reading(p.dtype));
        launches.push(over(&name, elements, args).finished(&finish, Pointer::Output(0, 0), &[]));
    }
    if let (Pooling::Max { column_major, .. }, Ok(_)) = (p.pooling, call.output(1)) {
        let args = arguments(p, AXES[1], column_major.into(), Some(Pointer::Output(1, 0)))?;
        // Nothing is stored by a formula.
        let finish = Arc::new(Finish::epilogue(None, DType::F64, &Type::new(DType::F64, [1]))?.reading(p.dtype));
        launches.push(over("pool_place", elements, args).finished(&finish, Pointer::Null, &[]));
    }
    Ok(launches)
}

/// Of the sum of powers.
fn root(p: i64) -> Formula {
    match p {
        1 => arg(0),
        2 => arg(0).sqrt(),
        p => arg(0).pow(constant(1.0 / p as f64)),
    }
}

/// The arguments of kernels/pool.ptx.j2 for so many spatial axes, the first of which are of size 1 where there are fewer.
fn arguments(p: &PoolProblem, axes: usize, option: u32, places: Option<Pointer>) -> Result<Vec<Arg>> {
    let w = &p.window;
    let left = axes.checked_sub(w.rank()).ok_or_else(|| failed("pooling along too many axes"))?;
    let part = |i: usize| {
        let numbers = match i.checked_sub(left) {
            None => [1, 1, 1, 0, 1],
            Some(a) => {
                let padded = (w.input[a] as i64 + w.pads_end[a]) as u32;
                [w.input[a] as u32, w.kernel[a] as u32, w.dilations[a] as u32, w.pads[a] as u32, padded]
            }
        };
        Arg::Block(numbers.map(Arg::U32).to_vec())
    };
    let window = Arg::Block((0..axes).map(part).collect());
    let (rank, walked) = if axes == AXES[0] {
        let walk = starts::<4>(p, left);
        (walk.rank(), walk.argument()?)
    } else {
        let walk = starts::<7>(p, left);
        (walk.rank(), walk.argument()?)
    };
    let elements = Arg::U32((p.planes * w.pixels()) as u32);
    let mut args = vec![Arg::Pointer(Pointer::Input(0, 0)), elements, rank, Arg::U32(option), window, walked];
    args.extend(places.map(Arg::Pointer));
    Ok(args)
}

/// Outputs: the plane's first element, then the window's begin along each axis, the first `left` of which are left out.
fn starts<const N: usize>(p: &PoolProblem, left: usize) -> Walk<N> {
    let w = &p.window;
    let mut plane = [0; N];
    plane[0] = w.plane() as i64;
    let axis = |a: usize| {
        let mut steps = [0; N];
        steps[1 + left + a] = w.strides[a] as i64;
        (w.output[a], steps)
    };
    Walk::new([(p.planes, plane)].into_iter().chain((0..w.rank()).map(axis)))
}

/// A warp a plane.
pub(super) fn planes(call: &Call) -> Result<Vec<Launch>> {
    let p = problem(call)?;
    let name = match p.pooling {
        Pooling::Max { .. } => "pool_maximum_whole",
        _ => "pool_average_whole",
    };
    if p.planes == 0 {
        return Ok(Vec::new());
    }
    let finish = Arc::new(Finish::epilogue(None, DType::F32, call.output(0)?)?.reading(p.dtype));
    let args = vec![Arg::Pointer(Pointer::Input(0, 0)), Arg::U32(p.planes as u32), Arg::U32(Window::plane(&p.window) as u32)];
    let variant = Variant::named(name);
    let blocks = p.planes.div_ceil(variant.threads as usize / 32);
    Ok(vec![Launch::new(variant, [blocks as u32, 1, 1], args).finished(&finish, Pointer::Output(0, 0), &[])])
}
