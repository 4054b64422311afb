//! What all rows of shaders share.

use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};
use crate::kernel::KernelDef;
use crate::kernel::gpu::row::on;

/// Whether a row takes a problem.
pub type Accepts = fn(&Problem) -> Result<(), &'static str>;
/// Predicted microseconds.
pub type Cost = fn(&Problem, &DeviceInfo) -> f64;

/// Runs on every adapter.
pub const fn row(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::empty(), accepts, cost_us)
}

/// Asks for 64-bit types in shaders.
pub const fn row64(name: &'static str, family: Family, accepts: Accepts, cost_us: Cost) -> KernelDef {
    on(DeviceKind::Wgpu, name, family, Capabilities::SHADER_INT64.union(Capabilities::SHADER_F64), accepts, cost_us)
}

/// Whether shaders need more than WGSL's own types to compute with it.
pub fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::U64 | DType::F64)
}
