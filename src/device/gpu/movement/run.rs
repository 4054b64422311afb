//! Which movement it is.

use super::{copy, index, interpolate, mapped, scatter, structured};
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::launch::Launch;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::movement::Movement;

pub(super) fn launches(call: &Call) -> Result<Vec<Launch>> {
    let Problem::Move(problem) = call.problem else { return Err(failed("not a movement")) };
    if let Movement::Copy { pieces, fill } = &problem.movement {
        return copy::launches(call, pieces, *fill);
    }
    if call.output(0).is_ok_and(|out| out.shape.numel() == 0) {
        return Ok(Vec::new());
    }
    match &problem.movement {
        Movement::Copy { .. } => Ok(Vec::new()),
        Movement::Axes(maps) => mapped::launches(call, maps),
        Movement::Interpolate { axes, outside } => interpolate::launches(call, axes, *outside),
        Movement::Gather { axis } => index::gather(call, *axis),
        Movement::GatherElements { axis } => index::gather_elements(call, *axis),
        Movement::GatherNd { batch_dims } => index::gather_nd(call, *batch_dims),
        Movement::ScatterElements { axis, reduction } => scatter::elements(call, *axis, *reduction),
        Movement::ScatterNd { reduction } => scatter::nd(call, *reduction),
        Movement::Trilu { upper, k } => structured::trilu(call, *upper, *k),
        Movement::OneHot { axis, depth } => structured::one_hot(call, *axis, *depth),
        Movement::ReverseSequence { batch_axis, time_axis } => structured::reverse(call, *batch_axis, *time_axis),
    }
}

/// Scratch bytes of a movement.
pub(super) fn scratch_bytes(problem: &Problem) -> usize {
    let Problem::Move(p) = problem else { return 0 };
    let input = |i: usize| p.inputs.get(i).and_then(Option::as_ref);
    match &p.movement {
        Movement::Interpolate { axes, .. } => input(0).map_or(0, |x| interpolate::scratch_bytes(&x.shape, axes)),
        Movement::ScatterElements { .. } | Movement::ScatterNd { .. } => match (input(0), input(1)) {
            (Some(data), Some(indices)) => scatter::scratch_bytes(&p.movement, data, indices),
            _ => 0,
        },
        Movement::OneHot { .. } => input(0).map_or(0, index::scratch_bytes),
        Movement::Gather { .. }
        | Movement::GatherElements { .. }
        | Movement::GatherNd { .. }
        | Movement::ReverseSequence { .. } => input(1).map_or(0, index::scratch_bytes),
        Movement::Copy { .. } | Movement::Axes(_) | Movement::Trilu { .. } => 0,
    }
}
