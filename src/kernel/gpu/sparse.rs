//! Matrix products with weights of which two in every four neighbours are zero: which each kernel takes, and its tiles.

use super::gemm::{Stage, Tile, cost_us, gemm, half, int8, moved_bytes, operand_bytes, tensor_peak};
use super::hopper::{self, Wide, wide_us};
use super::row::row;
use crate::base::sparse::stored_bytes;
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

/// On `wgmma`, kernels/gemm_sm90_sparse.ptx.j2: 64 columns x 256 rows for each of two warpgroups. For a slot of 512 clocks of the sparse peak shared
/// memory takes 42 KB and gives 64 KB to the products and 9 KB of fragments, which takes it 912 at 128 bytes a clock: 56 % of that peak. Dense tiles,
/// which it leaves 98 %, reach 78 (see [`hopper`]); half is a guess between the two.
pub static SPARSE_256X128: Wide = Wide { m: 256, n: 128, cluster: 1, share: 0.5 };
/// 64 columns x 128 rows each, for fewer rows: 26 KB, 32 KB and 9 KB for 256 clocks are 48 %.
pub static SPARSE_WIDE_128X128: Wide = Wide { m: 128, n: 128, cluster: 1, share: 0.43 };

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
    wide("cuda-sm90-sparse-half-256x128", wide_halves, |p, i| wide_cost_us(&SPARSE_256X128, p, i)),
    wide("cuda-sm90-sparse-half-128x128", wide_halves, |p, i| wide_cost_us(&SPARSE_WIDE_128X128, p, i)),
    wide("cuda-sm90-sparse-int8-256x128", wide_bytes, |p, i| wide_cost_us(&SPARSE_256X128, p, i)),
    wide("cuda-sm90-sparse-int8-128x128", wide_bytes, |p, i| wide_cost_us(&SPARSE_WIDE_128X128, p, i)),
];

/// The texts are PTX 8.4: a driver that takes `mma.sp`'s takes them.
const fn wide(
    name: &'static str,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    row(name, Family::Gemm, Capabilities::SM_90A.union(Capabilities::MMA_SP), accepts, cost_us)
}

fn wide_halves(problem: &Problem) -> Result<(), &'static str> {
    hopper::halves(problem).and(two_of_four(problem))
}

fn wide_bytes(problem: &Problem) -> Result<(), &'static str> {
    hopper::bytes(problem).and(two_of_four(problem))
}

fn wide_cost_us(tile: &Wide, problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    let weights = (p.n * p.k * operand_bytes(p)) as f64;
    let bytes = moved_bytes(p) - weights + stored_bytes(weights, operand_bytes(p));
    wide_us(tile, p, info, 2.0 * tensor_peak(p, info), bytes)
}

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
