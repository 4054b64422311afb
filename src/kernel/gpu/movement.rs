//! Kernels of the movement family.

use super::row::{ELEMENTS, launch_us, row};
use crate::base::DType;
use crate::graph::problem::Family;
use crate::graph::problem::movement::{Movement, Reduction};
use crate::graph::{Problem, Type};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[row("cuda-any-move", Family::Move, Capabilities::SM_61, accepts, cost_us)];

/// Axes that the kernels walk along, at most.
const AXES: usize = 8;

pub(super) fn accepts(problem: &Problem) -> Result<(), &'static str> {
    let Problem::Move(p) = problem else { return Err("not a movement") };
    let mut all = p.inputs.iter().flatten().chain(&p.outputs);
    if all.any(|t: &Type| t.shape.numel() > ELEMENTS) {
        return Err("at most 2^31 - 1 elements");
    }
    let rank = |i: usize| p.inputs.get(i).and_then(Option::as_ref).map_or(0, |t| t.shape.rank());
    let axes = match &p.movement {
        Movement::Copy { pieces, .. } => pieces.iter().map(|p| p.from.shape.rank()).max().unwrap_or(0),
        Movement::GatherNd { .. } | Movement::ScatterNd { .. } => {
            p.inputs[1].as_ref().and_then(|t| t.shape.last().copied()).unwrap_or(0)
        }
        Movement::Gather { .. } | Movement::Trilu { .. } | Movement::OneHot { .. } => 0,
        _ => rank(0),
    };
    let folds = |t: &Type| matches!(t.dtype, DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::U8 | DType::I8);
    match &p.movement {
        _ if axes > AXES => Err("at most 8 axes"),
        Movement::ScatterElements { reduction, .. } | Movement::ScatterNd { reduction }
            if *reduction != Reduction::None && !p.outputs.iter().all(folds) =>
        {
            Err("no reduction of this type")
        }
        _ => Ok(()),
    }
}

pub(super) fn cost_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Move(p) = problem else { return f64::INFINITY };
    let launches = match &p.movement {
        Movement::Copy { pieces, fill } => pieces.len() + usize::from(fill.is_some()),
        Movement::Interpolate { axes, .. } => axes.iter().flatten().count().div_ceil(2),
        Movement::ScatterElements { .. } | Movement::ScatterNd { .. } => 3,
        _ => 1,
    };
    let more = launches.saturating_sub(1) as f64;
    more * super::row::LAUNCH_US + launch_us(info, p.bytes(), 0.75, 0.0)
}
