//! Kernels of the recurrent family.

use super::row::row;
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::kernel::KernelDef;
use crate::kernel::gpu::recurrent::{cost_us, floats, int8};
use crate::scalar::Steps;
use crate::scalar::wgsl::exact_function;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-any-recurrent", Family::Recurrent, floats, cost_us),
    row("wgpu-any-int8-recurrent", Family::Recurrent, bytes, cost_us),
];

/// Hidden units at most: four rows of bytes lie where the sums lie later, in 8 KB. `MOST` of shaders/recurrent_step.wgsl.j2.
const INT8_HIDDEN: usize = 2048;

/// The state is rounded to bytes at each step, so that activations need the CPU's bits.
fn bytes(problem: &Problem) -> Result<(), &'static str> {
    int8(problem)?;
    let Problem::Recurrent(p) = problem else { return Err("not a recurrent layer") };
    let exact = |f| Steps::compile(f, &[DType::F32], DType::F32).and_then(|s| exact_function("f", &s)).is_ok();
    match () {
        _ if p.hidden_size > INT8_HIDDEN => Err("at most 2048 hidden units"),
        _ if !p.activations.iter().all(exact) => Err("an activation that shaders lack with the CPU's bits"),
        _ => Ok(()),
    }
}
