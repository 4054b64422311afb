//! Which movement it is.

use super::{copy, gather, interpolate, scatter};
use crate::base::{TensorView, TensorViewMut};
use crate::device::cpu::Call;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::movement::Movement;

pub(super) fn error(why: impl Into<String>) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Move(problem) = call.problem else { return Err(error("the problem is of another family")) };
    let input = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")));
    if let Movement::Copy { pieces, fill } = &problem.movement {
        return copy::pieces(pieces, *fill, call.inputs, call.outputs);
    }
    let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
    match &problem.movement {
        Movement::Copy { .. } => Ok(()),
        Movement::Axes(maps) => gather::axes(maps, input(0)?, out),
        Movement::Interpolate { axes, outside } => interpolate::run(axes, *outside, input(0)?, out),
        Movement::Gather { axis } => gather::gather(*axis, input(0)?, input(1)?, out),
        Movement::GatherElements { axis } => gather::elements(*axis, input(0)?, input(1)?, out),
        Movement::GatherNd { batch_dims } => gather::nd(*batch_dims, input(0)?, input(1)?, out),
        Movement::ScatterElements { axis, reduction } => {
            scatter::elements(*axis, *reduction, [input(0)?, input(1)?, input(2)?], out)
        }
        Movement::ScatterNd { reduction } => scatter::nd(*reduction, [input(0)?, input(1)?, input(2)?], out),
        Movement::Trilu { upper, k } => {
            trilu(*upper, *k, input(0)?, out);
            Ok(())
        }
        Movement::OneHot { axis, depth } => gather::one_hot(*axis, *depth, input(0)?, input(2)?, out),
        Movement::ReverseSequence { batch_axis, time_axis } => {
            gather::reverse_sequence(*batch_axis, *time_axis, input(0)?, input(1)?, out)
        }
    }
}

fn trilu(upper: bool, k: i64, data: &TensorView, out: &mut TensorViewMut) {
    let (size, rank) = (data.dtype.size_bytes(), data.shape.rank());
    let (rows, columns) = (data.shape[rank - 2], data.shape[rank - 1]);
    out.bytes.copy_from_slice(data.bytes);
    for (i, row) in out.bytes.chunks_exact_mut(columns * size).enumerate() {
        let diagonal = ((i % rows) as i64).saturating_add(k).clamp(-1, columns as i64);
        let zeroed = if upper { 0..diagonal.max(0) as usize } else { ((diagonal + 1).max(0) as usize).min(columns)..columns };
        row[zeroed.start * size..zeroed.end * size].fill(0);
    }
}
