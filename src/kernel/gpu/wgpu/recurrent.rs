//! Kernels of the recurrent family: of floats, since layers of 8-bit weights need activations with the CPU's bits.

use super::row::row;
use crate::graph::problem::Family;
use crate::kernel::KernelDef;
use crate::kernel::gpu::recurrent::{cost_us, floats};

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[row("wgpu-any-recurrent", Family::Recurrent, floats, cost_us)];
