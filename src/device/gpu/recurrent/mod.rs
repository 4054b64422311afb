//! LSTM, GRU and the plain recurrent layer: docs/cuda-rows.md. [`steps`]: what all layers do; [`quantized`]: 8-bit weights.

mod quantized;
mod steps;

use super::call::GpuKernel;
use crate::device::cpu::call::pack_nothing;

pub(super) static KERNELS: &[GpuKernel] =
    &[floats("sm61-recurrent"), floats("any-recurrent"), bytes("sm61-int8-recurrent"), bytes("any-int8-recurrent")];

const fn floats(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: steps::scratch_bytes, launches: steps::launches }
}

const fn bytes(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: quantized::pack, scratch_bytes: steps::scratch_bytes, launches: steps::launches }
}
