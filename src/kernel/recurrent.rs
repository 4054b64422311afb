//! Kernels of the recurrent family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo, DeviceKind};

pub(crate) static KERNELS: &[KernelDef] = &[
    row("cpu-any-recurrent", Capabilities::empty(), |_| Ok(()), |p, _| 5.0 + p.flops() / 1e3),
    row("cpu-portable-float-recurrent", Capabilities::empty(), float, |p, _| cost(p, 5e3)),
    row("cpu-portable-int8-recurrent", Capabilities::empty(), int8, |p, _| cost(p, 5e3)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-float-recurrent", Capabilities::AVX2, float, |p, _| cost(p, 30e3)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-float-recurrent", Capabilities::AVX512, float, |p, _| cost(p, 40e3)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx2-int8-recurrent", Capabilities::AVX2, int8, |p, _| cost(p, 50e3)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512-int8-recurrent", Capabilities::AVX512, int8, |p, _| cost(p, 60e3)),
    #[cfg(target_arch = "x86_64")]
    row("cpu-avx512vnni-int8-recurrent", Capabilities::AVX512_VNNI, int8, |p, _| cost(p, 90e3)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-neon-float-recurrent", Capabilities::NEON, float, |p, _| cost(p, 10e3)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-neon-int8-recurrent", Capabilities::NEON, int8, |p, _| cost(p, 10e3)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-dotprod-int8-recurrent", Capabilities::DOTPROD, int8, |p, _| cost(p, 30e3)),
    #[cfg(target_arch = "aarch64")]
    row("cpu-i8mm-int8-recurrent", Capabilities::I8MM, int8, |p, _| cost(p, 40e3)),
];

const fn row(
    name: &'static str,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    KernelDef { name, device: DeviceKind::Cpu, family: Family::Recurrent, needs, proof: Proof::Run, accepts, cost_us }
}

/// Microseconds at a rate of operations a microsecond.
fn cost(p: &Problem, rate: f64) -> f64 {
    3.0 + p.flops() / rate
}

fn float(p: &Problem) -> Result<(), &'static str> {
    match p {
        Problem::Recurrent(p) if p.quantized.is_some() => Err("no quantised weights"),
        Problem::Recurrent(p) if p.dtype == DType::F64 => Err("takes f32, f16 and bf16 only"),
        Problem::Recurrent(_) => Ok(()),
        _ => Err("another family's problem"),
    }
}

fn int8(p: &Problem) -> Result<(), &'static str> {
    match p {
        Problem::Recurrent(p) if p.quantized.is_none() || p.dtype != DType::F32 => Err("quantised weights and f32 only"),
        // The bound of exact sums of 8-bit products in i32.
        Problem::Recurrent(p) if p.input_size.max(p.hidden_size) >= 33_000 => {
            Err("sums of more than 33,000 products may overflow")
        }
        Problem::Recurrent(_) => Ok(()),
        _ => Err("another family's problem"),
    }
}
