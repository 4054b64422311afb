//! Kernels of the gemm family.

use super::row::{is_wide, row, row64};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::{Capabilities, DeviceKind};
use crate::kernel::KernelDef;
use crate::kernel::gpu::gemm::{
    WGSL_F32_32X32, WGSL_F32_64X64, WGSL_F32_128X64, WGSL_INT8_32X32, WGSL_INT8_64X64, WGSL_INT8_128X64, any_us, contraction,
    cost_us, float_rows, gemm, gemv_us, int8, int8_rows, product, real,
};
use crate::kernel::gpu::picked::{picked, picked_us};
use crate::kernel::gpu::row::on;
use crate::scalar::Steps;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    row("wgpu-any-gemm", Family::Gemm, any32, any_us),
    row64("wgpu-any-gemm64", Family::Gemm, any64, any_us),
    row("wgpu-float-gemv", Family::Gemm, few_floats, gemv_us),
    row("wgpu-int8-gemv", Family::Gemm, few_bytes, gemv_us),
    row("wgpu-float-picked", Family::Gemm, stacks, picked_us),
    row("wgpu-tile-float-128x64", Family::Gemm, floats, |p, i| cost_us(&WGSL_F32_128X64, p, i)),
    row("wgpu-tile-float-64x64", Family::Gemm, floats, |p, i| cost_us(&WGSL_F32_64X64, p, i)),
    row("wgpu-tile-float-32x32", Family::Gemm, floats, |p, i| cost_us(&WGSL_F32_32X32, p, i)),
    row("wgpu-tile-int8-128x64", Family::Gemm, bytes, |p, i| cost_us(&WGSL_INT8_128X64, p, i)),
    row("wgpu-tile-int8-64x64", Family::Gemm, bytes, |p, i| cost_us(&WGSL_INT8_64X64, p, i)),
    row("wgpu-tile-int8-32x32", Family::Gemm, bytes, |p, i| cost_us(&WGSL_INT8_32X32, p, i)),
    coop("wgpu-coop16-f16-128x128", Capabilities::COOP_16),
    coop("wgpu-coop16-f16-64x64", Capabilities::COOP_16),
    coop("wgpu-coop8-f16-64x64", Capabilities::COOP_8),
    coop("wgpu-coop8-narrow-f16-64x64", Capabilities::COOP_8_NARROW),
];

/// By cooperative matrices, which no GPU has run yet and some drivers get wrong: predicted just slower than a tile, so that a measurement
/// with a right result may choose it, and nothing else does.
const fn coop(name: &'static str, needs: Capabilities) -> KernelDef {
    on(DeviceKind::Wgpu, name, Family::Gemm, needs, halves, |p, i| 1.01 * cost_us(&WGSL_F32_128X64, p, i))
}

fn halves(problem: &Problem) -> Result<(), &'static str> {
    floats(problem)?;
    let p = gemm(problem)?;
    if p.a.dtype == DType::F16 && p.b_as == DType::F16 { Ok(()) } else { Err("other types than f16") }
}

fn floats(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem).and(real(problem))
}

fn bytes(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem).and(int8(problem))
}

fn few_floats(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem).and(float_rows(problem))
}

fn stacks(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem).and(picked(problem))
}

fn few_bytes(problem: &Problem) -> Result<(), &'static str> {
    narrow(problem).and(int8_rows(problem))
}

/// What follows the product has no 64-bit types.
fn narrow(problem: &Problem) -> Result<(), &'static str> {
    if follows(product(problem)?).any(is_wide) { Err("64-bit types in what follows") } else { Ok(()) }
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
