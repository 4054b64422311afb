//! CPU kernels of the movement family.

mod copy;
mod gather;
mod interpolate;
mod run;
mod scatter;

use super::CpuKernel;

pub(super) static KERNELS: &[CpuKernel] = &[CpuKernel::new("cpu-any-move", &run::run)];
