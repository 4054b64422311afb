//! Matrix products with weights of which two in every four neighbours are zero: which each kernel takes, and its tiles.

use super::gemm::{Stage, Tile, cost_us, gemm, half, int8};
use super::row::row;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

/// 4 warps of 64x64. At twice the dense rate they wait for shared memory before the tensor cores: 13 KB for 64 bytes of K and 6.5 KB for each warp.
pub static SPARSE_128X128: Tile = tile(128, 128, 0.6);
/// 4 warps of 32x32.
pub static SPARSE_64X64: Tile = tile(64, 64, 0.4);
/// 4 warps of 16x32.
pub static SPARSE_16X128: Tile = tile(16, 128, 0.25);

const fn tile(m: usize, n: usize, share: f64) -> Tile {
    Tile { family: "gemm_sparse", m, n, stage: Stage::Sparse, share }
}

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    sparse("cuda-sm80-sparse-half-128x128", halves, |p, i| cost_us(&SPARSE_128X128, p, i)),
    sparse("cuda-sm80-sparse-half-64x64", halves, |p, i| cost_us(&SPARSE_64X64, p, i)),
    sparse("cuda-sm80-sparse-half-16x128", halves, |p, i| cost_us(&SPARSE_16X128, p, i)),
    sparse("cuda-sm80-sparse-int8-128x128", bytes, |p, i| cost_us(&SPARSE_128X128, p, i)),
    sparse("cuda-sm80-sparse-int8-64x64", bytes, |p, i| cost_us(&SPARSE_64X64, p, i)),
    sparse("cuda-sm80-sparse-int8-16x128", bytes, |p, i| cost_us(&SPARSE_16X128, p, i)),
];

const fn sparse(
    name: &'static str,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    row(name, Family::Gemm, Capabilities::SM_80.union(Capabilities::MMA_SP), accepts, cost_us)
}

fn halves(problem: &Problem) -> Result<(), &'static str> {
    half(problem).and(two_of_four(problem))
}

fn bytes(problem: &Problem) -> Result<(), &'static str> {
    int8(problem).and(two_of_four(problem))
}

fn two_of_four(problem: &Problem) -> Result<(), &'static str> {
    let p = gemm(problem)?;
    match () {
        _ if !p.two_of_four => Err("weights of which two in every four are zero only"),
        _ if p.top.is_some() => Err("all results"),
        _ => Ok(()),
    }
}
