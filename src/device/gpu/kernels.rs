//! The code behind every row of the kernel table that runs on a GPU.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::call::GpuKernel;
use super::device::failed;
use super::{attend, conv, gemm, movement, pool, recurrent, reduce, scalar, select};
use crate::error::Result;

static TABLES: &[&[GpuKernel]] = &[
    gemm::KERNELS,
    gemm::hopper::KERNELS,
    scalar::KERNELS,
    conv::depthwise::KERNELS,
    conv::direct::KERNELS,
    conv::fma::KERNELS,
    conv::tensor::KERNELS,
    movement::KERNELS,
    pool::KERNELS,
    select::KERNELS,
    reduce::KERNELS,
    attend::KERNELS,
    recurrent::KERNELS,
];

/// Every one.
pub fn kernels() -> impl Iterator<Item = &'static GpuKernel> {
    TABLES.iter().copied().flatten()
}

/// A row's name without its device: rows of several devices share their code.
fn code(name: &str) -> &str {
    name.split_once('-').map_or(name, |(_, code)| code)
}

/// The code behind a row of the kernel table.
pub fn find(name: &str) -> Result<&'static GpuKernel> {
    static INDEX: OnceLock<HashMap<&'static str, &'static GpuKernel>> = OnceLock::new();
    let index = INDEX.get_or_init(|| kernels().map(|k| (k.name, k)).collect());
    index.get(code(name)).copied().ok_or_else(|| failed(format!("kernel {name} has no code on GPUs")))
}
