//! Matrix products on Hopper's own instructions (sm_90a): which product each kernel takes, and what it costs.

use super::gemm::{half, int8, moved_bytes, operand_bytes, prepared, tensor_peak};
use super::row::{LAUNCH_US, launch_us, row};
use crate::base::{DType, Shape};
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::gemm::{Dynamic, GemmProblem};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

/// A kernel of kernels/gemm_sm90.ptx.j2: blocks that go on from tile to tile.
#[derive(Debug)]
pub struct Wide {
    /// Rows of a block's tile.
    pub m: usize,
    /// Columns of it.
    pub n: usize,
    /// Blocks of a cluster: tiles one below the other that share B's.
    pub cluster: usize,
    /// Share of the peak that full SMs are expected to reach.
    pub share: f64,
}

// What others reached in bf16 with such a ring, of the H100's 989 TFLOP/s: 771 with clusters of two, which gave 4 %; 498 with tiles of 128 x 128 where
// 128 x 256 gave 610. Source: the ladder in docs/kernels.md.

/// 64 x 256 sums for each of two warpgroups.
pub static W128X256: Wide = Wide { m: 128, n: 256, cluster: 1, share: 0.75 };
/// The same, two blocks sharing what they read of B.
pub static W128X256_C2: Wide = Wide { m: 128, n: 256, cluster: 2, share: 0.78 };
/// 64 x 128 sums each, for fewer tiles.
pub static W128X128: Wide = Wide { m: 128, n: 128, cluster: 1, share: 0.61 };
/// 64 x 128 sums each, for few rows: for a slot of 512 clocks shared memory takes 40 KB and gives 48, which takes it 700.
pub static W64X256: Wide = Wide { m: 64, n: 256, cluster: 1, share: 0.55 };

/// Rows of A at most of kernels/gemm_sm90_skinny.ptx.j2.
pub const TOKENS: usize = 64;

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    wide("cuda-sm90-half-128x256", halves, |p, i| cost_us(&W128X256, p, i)),
    wide("cuda-sm90-half-128x256-c2", |p| halves(p).and(boxed(p)), |p, i| cost_us(&W128X256_C2, p, i)),
    wide("cuda-sm90-half-128x128", halves, |p, i| cost_us(&W128X128, p, i)),
    wide("cuda-sm90-half-64x256", halves, |p, i| cost_us(&W64X256, p, i)),
    wide("cuda-sm90-half-few", |p| halves(p).and(few(p)).and(whole(p)), few_us),
    wide("cuda-sm90-int8-128x256", |p| bytes(p).and(boxed(p)), |p, i| cost_us(&W128X256, p, i)),
    wide("cuda-sm90-int8-128x256-c2", |p| bytes(p).and(boxed(p)).and(plain(p)), |p, i| cost_us(&W128X256_C2, p, i)),
    wide("cuda-sm90-int8-128x128", bytes, |p, i| cost_us(&W128X128, p, i)),
    wide("cuda-sm90-int8-few", |p| bytes(p).and(few(p)), few_us),
];

const fn wide(
    name: &'static str,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    row(name, Family::Gemm, Capabilities::SM_90A, accepts, cost_us)
}

/// Steps from one matrix of a batch to the next when all are evenly apart, 0 when they are one; `None` otherwise.
pub fn stride(batch: &Shape, steps: &[usize]) -> Option<usize> {
    let mut axes = batch.iter().zip(steps).rev().filter(|a| *a.0 != 1);
    let Some((&dim, &step)) = axes.next() else { return Some(0) };
    let mut want = step * dim;
    let even = |(&dim, &s): (&usize, &usize)| std::mem::replace(&mut want, s * dim) == s;
    axes.all(even).then_some(step)
}

/// Whether results go out as boxes of 2-byte elements.
pub fn boxes(p: &GemmProblem) -> bool {
    matches!(p.stored(), DType::F16 | DType::BF16) && p.n.is_multiple_of(8)
}

/// Whether A's bytes are multiplied unsigned.
pub fn unsigned(p: &GemmProblem) -> bool {
    let dynamic = p.quant.as_ref().and_then(|q| q.dynamic);
    dynamic.map_or(p.a.dtype == DType::U8, |d| d != Dynamic::RowI8)
}

/// Whether integer sums need nothing but a scale.
pub fn scaled_only(p: &GemmProblem) -> bool {
    let Some(q) = &p.quant else { return false };
    let zeros = q.a_zero.is_some() || q.b_zero.is_some() || p.b.dtype == DType::U8;
    !zeros && !unsigned(p) && p.c.as_ref().is_none_or(|c| c.dtype != DType::I32) && p.out != DType::I32
}

fn gemm(problem: &Problem) -> Result<&GemmProblem, &'static str> {
    match problem {
        Problem::Gemm(p) if p.widths.is_empty() => Ok(p),
        Problem::Gemm(_) => Err("one matrix of results"),
        _ => Err("not a matrix product"),
    }
}

/// A tensor map has one step from matrix to matrix.
fn even(problem: &Problem) -> Result<(), &'static str> {
    let p = gemm(problem)?;
    let q = p.quant.clone().unwrap_or_default();
    let params = [&q.a_scale, &q.a_zero, &q.b_scale, &q.b_zero];
    let mut steps = params.into_iter().flatten().map(|q| &q.batch[..]).chain([&p.a.batch[..], &p.b.batch[..]]);
    match () {
        _ if p.k == 0 => Err("an empty sum"),
        _ if !steps.all(|s| stride(&p.batch, s).is_some()) => Err("matrices that are not evenly apart"),
        _ => Ok(()),
    }
}

pub(super) fn halves(problem: &Problem) -> Result<(), &'static str> {
    half(problem).and(even(problem))
}

pub(super) fn bytes(problem: &Problem) -> Result<(), &'static str> {
    int8(problem).and(even(problem))
}

/// Results that go out as boxes.
fn boxed(problem: &Problem) -> Result<(), &'static str> {
    if boxes(gemm(problem)?) { Ok(()) } else { Err("results of 2 bytes in rows of a multiple of 16 only") }
}

fn plain(problem: &Problem) -> Result<(), &'static str> {
    if scaled_only(gemm(problem)?) { Ok(()) } else { Err("no zero points") }
}

/// Few rows, of one matrix.
fn few(problem: &Problem) -> Result<(), &'static str> {
    let p = gemm(problem)?;
    if p.m <= TOKENS && p.batch.numel() == 1 { Ok(()) } else { Err("at most 64 rows of one matrix") }
}

/// How the sums of halves are shared out depends on the number of columns, and so do their last bits.
fn whole(problem: &Problem) -> Result<(), &'static str> {
    if gemm(problem)?.top.is_none() { Ok(()) } else { Err("all results") }
}

impl Wide {
    /// Rows and columns of the tiles of clusters, and their number with all batches.
    pub fn tiles(&self, p: &GemmProblem) -> [usize; 3] {
        let (m, n) = (p.m.div_ceil(self.m * self.cluster), p.n.div_ceil(self.n));
        [m, n, m * n * p.batch.numel()]
    }

    /// Clusters that run at one time, at most.
    pub fn clusters(&self, p: &GemmProblem, info: &DeviceInfo) -> usize {
        (info.cores / self.cluster).min(self.tiles(p)[2]).max(1)
    }

    /// Rows of tiles that are done column by column, so that what runs at one time reads about as much of A as of B.
    pub fn group(&self, info: &DeviceInfo) -> usize {
        let (at_once, shape) = ((info.cores / self.cluster) as f64, self.n as f64 / (self.m * self.cluster) as f64);
        ((at_once * shape).sqrt().round() as usize).max(1)
    }
}

fn arrangement_us(p: &GemmProblem, info: &DeviceInfo) -> f64 {
    prepared(p) as f64 * launch_us(info, (p.m * p.k * 6) as f64, 0.8, 0.0)
}

fn cost_us(tile: &Wide, problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    wide_us(tile, p, info, tensor_peak(p, info), moved_bytes(p))
}

/// With tensor cores of this peak, moving so many bytes.
pub(super) fn wide_us(tile: &Wide, p: &GemmProblem, info: &DeviceInfo, peak: f64, bytes: f64) -> f64 {
    let rounds = tile.tiles(p)[2].div_ceil((info.cores / tile.cluster).max(1)) as f64;
    let rate = peak * tile.share / info.cores.max(1) as f64;
    // Storing a tile's results takes about half a microsecond in which its SM does not multiply.
    let each = 2.0 * (tile.m * tile.n) as f64 * p.k as f64 / rate.max(1e-3) / 1e3 + 0.5;
    arrangement_us(p, info) + launch_us(info, bytes, 0.8, rounds * each)
}

fn few_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    // The ring fills at the start, and what each block summed up comes back from the cache.
    let compute_us =
        p.n.next_multiple_of(128) as f64 * (2 * TOKENS * p.k * operand_bytes(p)) as f64 / (info.peaks.f16_gflops * 1e3);
    arrangement_us(p, info) + launch_us(info, moved_bytes(p), 0.85, compute_us) + 1.0 + LAUNCH_US
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::nvidia;

    #[test]
    fn matrices_evenly_apart() {
        let batch = Shape::from([2, 1, 3]);
        assert_eq!(stride(&batch, &[30, 7, 10]), Some(10));
        assert_eq!(stride(&batch, &[0, 0, 0]), Some(0));
        assert_eq!(stride(&batch, &[0, 0, 10]), None);
        assert_eq!(stride(&batch, &[40, 0, 10]), None);
        assert_eq!(stride(&Shape::scalar(), &[]), Some(0));
        assert_eq!(stride(&Shape::from([2, 3, 4]), &[48, 16, 4]), Some(4));
    }

    #[test]
    fn tiles_that_run_together_are_about_square() {
        let h200 = nvidia::model("h200").unwrap();
        let groups = [&W128X256, &W128X256_C2, &W128X128, &W64X256].map(|t| t.group(&h200));
        assert_eq!(groups, [16, 8, 11, 23]);
    }
}
