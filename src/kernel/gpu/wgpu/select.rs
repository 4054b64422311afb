//! Kernels of the select family.

use super::row::row;
use crate::graph::problem::Family;
use crate::kernel::KernelDef;
use crate::kernel::gpu::select::{accepts, cost_us};

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[row("wgpu-any-top-k", Family::Select, accepts, cost_us)];
