//! LSTM, GRU and the plain recurrent layer: docs/cuda-rows.md. [`steps`]: what all layers do; [`quantized`]: 8-bit weights.

mod quantized;
mod steps;

use super::call::GpuKernel;
use crate::device::cpu::call::pack_nothing;

pub(super) static KERNELS: &[GpuKernel] = &[
    GpuKernel { name: "sm61-recurrent", pack: pack_nothing, scratch_bytes: steps::scratch_bytes, launches: steps::launches },
    GpuKernel {
        name: "sm61-int8-recurrent",
        pack: quantized::pack,
        scratch_bytes: steps::scratch_bytes,
        launches: steps::launches,
    },
];
