//! Kernels of the movement family.

use super::row::{is_wide, row, row64};
use crate::base::DType;
use crate::graph::problem::Family;
use crate::graph::problem::movement::{Movement, Reduction};
use crate::graph::{Problem, Type};
use crate::kernel::KernelDef;
use crate::kernel::gpu::movement::{accepts, cost_us};

pub(in crate::kernel) static KERNELS: &[KernelDef] =
    &[row("wgpu-any-move", Family::Move, accepts32, cost_us), row64("wgpu-any-move64", Family::Move, accepts, cost_us)];

/// Elements of 64 bits are moved by every adapter; some compute with them.
fn accepts32(problem: &Problem) -> Result<(), &'static str> {
    accepts(problem)?;
    let Problem::Move(p) = problem else { return Err("not a movement") };
    let is = |i: usize, of: fn(&Type) -> bool| p.inputs.get(i).and_then(Option::as_ref).is_some_and(of);
    let is_converted = |t: &Type| !matches!(t.dtype, DType::I32 | DType::I64 | DType::U64);
    let wide = |t: &Type| is_wide(t.dtype);
    let computes = match &p.movement {
        Movement::Interpolate { .. } => is(0, wide) || p.outputs.iter().any(wide),
        Movement::ScatterElements { reduction, .. } | Movement::ScatterNd { reduction } => {
            is(1, is_converted) || (*reduction != Reduction::None && is(0, wide))
        }
        Movement::Gather { .. }
        | Movement::GatherElements { .. }
        | Movement::GatherNd { .. }
        | Movement::ReverseSequence { .. } => is(1, is_converted),
        Movement::OneHot { .. } => is(0, is_converted),
        Movement::Copy { .. } | Movement::Axes(_) | Movement::Trilu { .. } => false,
    };
    if computes { Err("computed in 64 bits") } else { Ok(()) }
}
