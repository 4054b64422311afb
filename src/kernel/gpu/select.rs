//! Kernels of the select family.

use super::row::{ELEMENTS, launch_us, row};
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::select::Selection;
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

pub(in crate::kernel) static KERNELS: &[KernelDef] =
    &[row("cuda-any-top-k", Family::Select, Capabilities::SM_61, accepts, cost_us)];

/// Elements that a block keeps.
const KEPT: usize = 1024;

pub(super) fn accepts(problem: &Problem) -> Result<(), &'static str> {
    let Problem::Select(p) = problem else { return Err("not a choice") };
    match p.selection {
        Selection::TopK { k, .. } if k > KEPT => Err("at most 1024 elements of a line"),
        Selection::TopK { .. } if p.x.dtype.size_bytes() > 4 => Err("elements of at most 4 bytes"),
        Selection::TopK { .. } if p.x.shape.numel() > ELEMENTS => Err("at most 2^31 - 1 elements"),
        Selection::TopK { .. } => Ok(()),
        _ => Err("its output is known when its inputs are: the planner computes it"),
    }
}

/// A block sorts 2048 keys in some 66 steps of 100 ns; later keys are mostly only read.
pub(super) fn cost_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Select(p) = problem else { return f64::INFINITY };
    let Selection::TopK { axis, .. } = p.selection else { return f64::INFINITY };
    let dim = p.x.shape[axis].max(1);
    let lines = p.x.shape.numel().div_ceil(dim) as f64;
    // Eight blocks at a time on each of some hundred processors.
    let waves = (lines / 1000.0).ceil();
    let sorts = 2.0 + (dim as f64 / KEPT as f64).ln().max(0.0);
    launch_us(info, (p.x.shape.numel() * p.x.dtype.size_bytes()) as f64, 0.5, waves * sorts * 6.6)
}
