//! Kernels of the attend family.

use super::row::row;
use crate::graph::problem::Family;
use crate::kernel::KernelDef;
use crate::kernel::gpu::attend;

pub(in crate::kernel) static KERNELS: &[KernelDef] =
    &[row("wgpu-any-heads", Family::Attend, attend::heads, |p, info| attend::cost_us(p, info.peaks.f32_gflops * 0.2, 16, info))];
