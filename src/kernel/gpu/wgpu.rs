//! Rows of shaders. They take what the CUDA kernels of the same arguments take; where 64-bit types are computed with, a row of its own asks
//! for an adapter that has them.

use super::row::on;
use super::scalar;
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};
use crate::kernel::KernelDef;
use crate::scalar::{Domain, Steps};

type Accepts = fn(&Problem) -> Result<(), &'static str>;
type Cost = fn(&Problem, &DeviceInfo) -> f64;

/// Runs on every adapter.
const fn row(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::empty(), accepts, cost_us)
}

/// Asks for 64-bit types in shaders.
const fn row64(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::SHADER_INT64.union(Capabilities::SHADER_F64), accepts, cost_us)
}

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-any-scalar", Family::Scalar, formula32, scalar::cost_us),
    row64("wgpu-any-scalar64", Family::Scalar, formula, scalar::cost_us),
];

fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::U64 | DType::F64)
}

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
