//! The first elements of each line.

use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::select::Selection;

/// Keys kept at least, so that short lines are sorted at once.
const LEAST: usize = 32;

pub(super) fn launches(call: &Call) -> Result<Vec<Launch>> {
    let Problem::Select(problem) = call.problem else { return Err(failed("not a choice")) };
    let Selection::TopK { axis, k, largest } = problem.selection else { return Err(failed("not the first elements")) };
    let x = call.input(0)?;
    let (dim, inner): (usize, usize) = (x.shape[axis], x.shape[axis + 1..].iter().product());
    let lines = inner * x.shape[..axis].iter().product::<usize>();
    if lines == 0 || k == 0 {
        return Ok(Vec::new());
    }
    let variant = Variant::named("top_k");
    let most = variant.number("most") as usize;
    let half = k.next_power_of_two().max(dim.next_power_of_two().min(most)).max(LEAST);
    if half > most || k > dim {
        return Err(failed("more elements than are kept"));
    }
    let kind = match x.dtype {
        t if t.is_float() => 2,
        DType::I8 | DType::I16 | DType::I32 => 1,
        _ => 0,
    };
    let output = |i: usize| call.output(i).map_or(Pointer::Null, |_| Pointer::Output(i, 0));
    let pointers = [Pointer::Input(0, 0), output(0), output(1)].map(Arg::Pointer);
    let numbers = [dim, inner, k, half, x.dtype.size_bytes(), kind, usize::from(largest)].map(|n| Arg::U32(n as u32));
    Ok(vec![Launch::new(variant, [lines as u32, 1, 1], pointers.into_iter().chain(numbers).collect())])
}
