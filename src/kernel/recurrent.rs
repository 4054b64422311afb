//! Kernels of the recurrent family.

use super::{KernelDef, Proof};
use crate::base::DType;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::recurrent::{Activation, Cell};
use crate::hardware::{Capabilities, DeviceKind};

pub(crate) static KERNELS: &[KernelDef] = &[
    KernelDef {
        name: "cpu-any-recurrent",
        device: DeviceKind::Cpu,
        family: Family::Recurrent,
        needs: Capabilities::empty(),
        proof: Proof::Run,
        accepts: |_| Ok(()),
        cost_us: |p, _| 5.0 + p.flops() / 1000.0,
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx2-f32-lstm",
        device: DeviceKind::Cpu,
        family: Family::Recurrent,
        needs: Capabilities::AVX2,
        proof: Proof::Run,
        accepts: lstm,
        cost_us: |p, _| 3.0 + p.flops() / 20e3,
    },
    #[cfg(target_arch = "x86_64")]
    KernelDef {
        name: "cpu-avx512-f32-lstm",
        device: DeviceKind::Cpu,
        family: Family::Recurrent,
        needs: Capabilities::AVX512.union(Capabilities::AVX2),
        proof: Proof::Run,
        accepts: lstm,
        cost_us: |p, _| 3.0 + p.flops() / 30e3,
    },
    #[cfg(target_arch = "aarch64")]
    KernelDef {
        name: "cpu-neon-f32-lstm",
        device: DeviceKind::Cpu,
        family: Family::Recurrent,
        needs: Capabilities::NEON,
        proof: Proof::Run,
        accepts: lstm,
        cost_us: |p, _| 3.0 + p.flops() / 10e3,
    },
];

fn lstm(p: &Problem) -> Result<(), &'static str> {
    const USUAL: [Activation; 3] = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh];
    let Problem::Recurrent(p) = p else { return Err("another family's problem") };
    if p.cell != (Cell::Lstm { input_forget: false }) {
        return Err("LSTM without coupled gates only");
    }
    if p.dtype != DType::F32 {
        return Err("takes f32 only");
    }
    if p.clip.is_some() || p.activations.chunks(3).any(|a| a != USUAL) {
        return Err("no clip and no activations but sigmoid and tanh");
    }
    // The bound of exact sums of 8-bit products in i32.
    if p.quantized.is_some() && p.input_size.max(p.hidden_size) >= 33_000 {
        return Err("sums of more than 33,000 products may overflow");
    }
    Ok(())
}
