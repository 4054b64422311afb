//! Kernels of the pool family.

use super::row::{row, row64};
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::pool::Pooling;
use crate::kernel::KernelDef;
use crate::kernel::gpu::pool;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-f32-pool", Family::Pool, pool::narrow, |p, info| pool::windows_us(p, info, 1.0)),
    row64("wgpu-any-pool", Family::Pool, any, |p, info| pool::windows_us(p, info, 4.0)),
    row("wgpu-whole-pool", Family::Pool, pool::whole, pool::whole_us),
];

/// Everything but roots of f64, in f64.
fn any(problem: &Problem) -> Result<(), &'static str> {
    pool::any(problem)?;
    let Problem::Pool(p) = problem else { return Err("not pooling") };
    match p.pooling {
        Pooling::Lp { p: 3.. } => Err("a function that shaders lack in 64 bits"),
        _ => Ok(()),
    }
}
