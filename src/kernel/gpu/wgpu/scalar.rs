//! Kernels of the scalar family.

use super::row::{is_wide, row, row64};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::kernel::KernelDef;
use crate::kernel::gpu::scalar;
use crate::scalar::{Domain, Steps};

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-any-scalar", Family::Scalar, formula32, scalar::cost_us),
    row64("wgpu-any-scalar64", Family::Scalar, formula, scalar::cost_us),
];

fn formula(problem: &Problem) -> Result<(), &'static str> {
    scalar::accepts(problem)?;
    let Problem::Scalar(p) = problem else { return Err("not elementwise work") };
    let types: Vec<DType> = p.operands.iter().map(|t| t.dtype).collect();
    let steps = Steps::compile(&p.formula, &types, p.out.dtype).map_err(|_| "a formula of operands that are missing")?;
    crate::scalar::wgsl::function("f", &steps).map(drop).map_err(|_| "a function that shaders lack in 64 bits")
}

fn formula32(problem: &Problem) -> Result<(), &'static str> {
    formula(problem)?;
    let Problem::Scalar(p) = problem else { return Err("not elementwise work") };
    let types = || p.operands.iter().chain([&p.out]).map(|t| t.dtype);
    match types().any(is_wide) || Domain::of(types()) == Domain::I64 {
        true => Err("computed in 64 bits"),
        false => Ok(()),
    }
}
