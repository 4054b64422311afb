//! Kernels of the gemm family.

use super::row::{is_wide, row, row64};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::gemm::GemmProblem;
use crate::kernel::KernelDef;
use crate::kernel::gpu::gemm::{any_us, contraction, float_rows, gemm, gemv_us, int8_rows};
use crate::scalar::Steps;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-any-gemm", Family::Gemm, any32, any_us),
    row64("wgpu-any-gemm64", Family::Gemm, any64, any_us),
    row("wgpu-float-gemv", Family::Gemm, |p| narrow(p).and(float_rows(p)), gemv_us),
    row("wgpu-int8-gemv", Family::Gemm, |p| narrow(p).and(int8_rows(p)), gemv_us),
];

/// What follows the product has no 64-bit types.
fn narrow(problem: &Problem) -> Result<(), &'static str> {
    if follows(gemm(problem)?).any(is_wide) { Err("64-bit types in what follows") } else { Ok(()) }
}

/// Types of what follows a product, and of what is stored.
fn follows(p: &GemmProblem) -> impl Iterator<Item = DType> {
    p.epilogue.iter().flat_map(|e| &e.operands).map(|t| t.dtype).chain([p.stored()])
}

/// Of floats, in f32.
fn any32(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem)?;
    let p = contraction(problem)?;
    if p.out.is_float() && !is_wide(p.out) { Ok(()) } else { Err("sums in 64 bits") }
}

/// The others, in f64 or i64.
fn any64(problem: &Problem) -> Result<(), &'static str> {
    let p = contraction(problem)?;
    if any32(problem).is_ok() {
        return Err("products in f32");
    }
    let Some(e) = &p.epilogue else { return Ok(()) };
    let types: Vec<DType> = [DType::F32].into_iter().chain(e.operands.iter().map(|t| t.dtype)).collect();
    let steps = Steps::compile(&e.formula, &types, e.out).map_err(|_| "a formula of operands that are missing")?;
    crate::scalar::wgsl::function("f", &steps).map(drop).map_err(|_| "a function that shaders lack in 64 bits")
}
