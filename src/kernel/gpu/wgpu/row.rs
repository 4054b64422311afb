//! What all rows of shaders share.

use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::{EpilogueSpec, Family};
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};
use crate::kernel::KernelDef;
use crate::kernel::gpu::row::on;
use crate::scalar::Steps;

/// Whether a row takes a problem.
pub type Accepts = fn(&Problem) -> Result<(), &'static str>;
/// Predicted microseconds.
pub type Cost = fn(&Problem, &DeviceInfo) -> f64;

/// Runs on every adapter.
pub const fn row(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::empty(), accepts, cost_us)
}

/// Asks for 20 buffers in a shader.
pub const fn row_20(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::BUFFERS_20, accepts, cost_us)
}

/// Asks for 64-bit integers in shaders.
pub const fn row_i64(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::SHADER_INT64, accepts, cost_us)
}

/// Asks for 64-bit types in shaders.
pub const fn row64(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::SHADER_INT64.union(Capabilities::SHADER_F64), accepts, cost_us)
}

/// Whether shaders need more than WGSL's own types to compute with it.
pub fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::U64 | DType::F64)
}

/// What becomes of a kernel's values of type `value`, through the epilogue if there is one, which is given integers as f32: an error where
/// it is computed in 64 bits.
pub fn stores_in_32_bits(value: DType, epilogue: Option<&EpilogueSpec>, out: DType) -> Result<(), &'static str> {
    let operands = epilogue.iter().flat_map(|e| e.operands.iter().map(|t| t.dtype));
    match [value, epilogue.map_or(out, |e| e.out)].into_iter().chain(operands).any(is_wide) {
        true => Err("computed in 64 bits"),
        false => Ok(()),
    }
}

/// The same of an adapter with 64-bit types: an error where shaders lack a function.
pub fn stores_in_64_bits(value: DType, epilogue: Option<&EpilogueSpec>) -> Result<(), &'static str> {
    let Some(e) = epilogue else { return Ok(()) };
    let types: Vec<DType> = [value].into_iter().chain(e.operands.iter().map(|t| t.dtype)).collect();
    let steps = Steps::compile(&e.formula, &types, e.out).map_err(|_| "a formula of operands that are missing")?;
    crate::scalar::wgsl::function("f", &steps).map(drop).map_err(|_| "a function that shaders lack in 64 bits")
}
