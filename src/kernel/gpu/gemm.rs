//! Kernels of the gemm family: what they take, and what they cost by the device's peaks, the tiles that the product fills and the
//! waves in which they run.

use super::row::{ELEMENTS, launch_us, row};
use crate::base::DType;
use crate::base::sparse::stored_bytes;
use crate::graph::Problem;
use crate::graph::problem::Family;
use crate::graph::problem::gemm::{GemmProblem, Param};
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::KernelDef;

/// Labels of the result, summed labels and operands that `cuda-any-gemm` takes.
pub const KEPT: usize = 8;
/// See [`KEPT`].
pub const SUMMED: usize = 4;
/// See [`KEPT`].
pub const OPERANDS: usize = 4;
/// Microseconds from a load to its bytes: 466 to 541 clocks of the A100, RTX 4090 and H100. What blocks have not asked for by then memory does not
/// bring: it gives at most the bytes on their way in this time. Source: Luo et al. (see [`mma_rate`]), latencies of global memory.
const MEMORY_US: f64 = 0.3;
/// Blocks of a tiled kernel that an SM holds at one time.
const RESIDENT: usize = 2;
/// Rows of A at most where B is read once for all of them.
pub const FEW_ROWS: usize = 8;

/// A tiled kernel.
#[derive(Debug)]
pub struct Tile {
    /// Its texts are named `<family>_<types>_<M>x<N>`.
    pub family: &'static str,
    /// Rows of a block's tile.
    pub m: usize,
    /// Columns of it.
    pub n: usize,
    /// What a stage holds of each row.
    pub stage: Stage,
    /// Share of the peak that full SMs are expected to reach.
    pub share: f64,
}

/// What a stage of a tiled kernel holds of each row of its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// 64 bytes, counted in pieces of 16.
    Bytes,
    /// 16 elements.
    Elements,
    /// 128 bytes, of B those of its elements that are left ([`crate::base::sparse`]), counted in pieces of 16 as if all were there.
    Sparse,
}

/// 256 threads of 8x4.
pub static SIMT_128X64: Tile = Tile { family: "gemm_simt", m: 128, n: 64, stage: Stage::Bytes, share: 0.65 };
/// 256 threads of 4x4.
pub static SIMT_64X64: Tile = Tile { family: "gemm_simt", m: 64, n: 64, stage: Stage::Bytes, share: 0.55 };
/// 256 threads of 8x4, of floats.
pub static F32_128X64: Tile = Tile { family: "gemm_simt", m: 128, n: 64, stage: Stage::Elements, share: 0.65 };
/// 256 threads of 4x4.
pub static F32_64X64: Tile = Tile { family: "gemm_simt", m: 64, n: 64, stage: Stage::Elements, share: 0.55 };
/// 8 warps of 64x32.
pub static SM75_128X128: Tile = Tile { family: "gemm_sm75", m: 128, n: 128, stage: Stage::Bytes, share: 0.65 };
/// 8 warps of 32x32.
pub static SM75_128X64: Tile = Tile { family: "gemm_sm75", m: 128, n: 64, stage: Stage::Bytes, share: 0.6 };
/// 4 warps of 32x32.
pub static SM75_64X64: Tile = Tile { family: "gemm_sm75", m: 64, n: 64, stage: Stage::Bytes, share: 0.5 };
/// 4 warps of 64x64.
pub static SM80_128X128: Tile = Tile { family: "gemm_sm80", m: 128, n: 128, stage: Stage::Bytes, share: 0.8 };
/// 4 warps of 32x32.
pub static SM80_64X64: Tile = Tile { family: "gemm_sm80", m: 64, n: 64, stage: Stage::Bytes, share: 0.55 };
/// 4 warps of 16x32.
pub static SM80_16X128: Tile = Tile { family: "gemm_sm80", m: 16, n: 128, stage: Stage::Bytes, share: 0.3 };
/// Shaders: 8 subgroups of 32x64, by matrices of 16x16.
pub static COOP16_128X128: Tile = Tile { family: "gemm_coop16", m: 128, n: 128, stage: Stage::Elements, share: 0.6 };
/// 4 subgroups of 32x32.
pub static COOP16_64X64: Tile = Tile { family: "gemm_coop16", m: 64, n: 64, stage: Stage::Elements, share: 0.35 };
/// 4 subgroups of 32x32, by matrices of 8x8.
pub static COOP8_64X64: Tile = Tile { family: "gemm_coop8", m: 64, n: 64, stage: Stage::Elements, share: 0.35 };
/// The same, of subgroups of 8.
pub static COOP8_NARROW_64X64: Tile = Tile { family: "gemm_coop8_narrow", m: 64, n: 64, stage: Stage::Elements, share: 0.35 };
/// 128 threads of 8x8, of floats.
pub static WGSL_F32_128X64: Tile = Tile { family: "gemm_tile", m: 128, n: 64, stage: Stage::Elements, share: 0.65 };
/// 64 threads of 8x8, of floats.
pub static WGSL_F32_64X64: Tile = Tile { family: "gemm_tile", m: 64, n: 64, stage: Stage::Elements, share: 0.55 };
/// 64 threads of 4x4, of floats.
pub static WGSL_F32_32X32: Tile = Tile { family: "gemm_tile", m: 32, n: 32, stage: Stage::Elements, share: 0.3 };
/// 128 threads of 8x8.
pub static WGSL_INT8_128X64: Tile = Tile { family: "gemm_tile", m: 128, n: 64, stage: Stage::Bytes, share: 0.65 };
/// 64 threads of 8x8.
pub static WGSL_INT8_64X64: Tile = Tile { family: "gemm_tile", m: 64, n: 64, stage: Stage::Bytes, share: 0.55 };
/// 64 threads of 4x4.
pub static WGSL_INT8_32X32: Tile = Tile { family: "gemm_tile", m: 32, n: 32, stage: Stage::Bytes, share: 0.3 };

pub(in crate::kernel) static KERNELS: &[KernelDef] = &[
    tensor("cuda-any-gemm", Capabilities::SM_61, any, any_us),
    tensor("cuda-sm61-float-gemv", Capabilities::SM_61, float_rows, gemv_us),
    tensor("cuda-sm61-int8-gemv", Capabilities::SM_61, int8_rows, gemv_us),
    tensor("cuda-sm61-float-128x64", Capabilities::SM_61, real, |p, i| cost_us(&F32_128X64, p, i)),
    tensor("cuda-sm61-float-64x64", Capabilities::SM_61, real, |p, i| cost_us(&F32_64X64, p, i)),
    tensor("cuda-sm61-int8-128x64", Capabilities::SM_61, int8, |p, i| cost_us(&SIMT_128X64, p, i)),
    tensor("cuda-sm61-int8-64x64", Capabilities::SM_61, int8, |p, i| cost_us(&SIMT_64X64, p, i)),
    tensor("cuda-sm75-f16-128x128", Capabilities::SM_75, f16, |p, i| cost_us(&SM75_128X128, p, i)),
    tensor("cuda-sm75-f16-64x64", Capabilities::SM_75, f16, |p, i| cost_us(&SM75_64X64, p, i)),
    tensor("cuda-sm75-int8-128x64", Capabilities::SM_75, int8, |p, i| cost_us(&SM75_128X64, p, i)),
    tensor("cuda-sm75-int8-64x64", Capabilities::SM_75, int8, |p, i| cost_us(&SM75_64X64, p, i)),
    tensor("cuda-sm80-half-128x128", Capabilities::SM_80, half, |p, i| cost_us(&SM80_128X128, p, i)),
    tensor("cuda-sm80-half-64x64", Capabilities::SM_80, half, |p, i| cost_us(&SM80_64X64, p, i)),
    tensor("cuda-sm80-half-16x128", Capabilities::SM_80, half, |p, i| cost_us(&SM80_16X128, p, i)),
    tensor("cuda-sm80-int8-128x128", Capabilities::SM_80, int8, |p, i| cost_us(&SM80_128X128, p, i)),
    tensor("cuda-sm80-int8-64x64", Capabilities::SM_80, int8, |p, i| cost_us(&SM80_64X64, p, i)),
    tensor("cuda-sm80-int8-16x128", Capabilities::SM_80, int8, |p, i| cost_us(&SM80_16X128, p, i)),
];

const fn tensor(
    name: &'static str,
    needs: Capabilities,
    accepts: fn(&Problem) -> Result<(), &'static str>,
    cost_us: fn(&Problem, &DeviceInfo) -> f64,
) -> KernelDef {
    row(name, Family::Gemm, needs, accepts, cost_us)
}

impl Tile {
    /// In how many parts K is computed, and pieces of a part (of [`Stage`]): more than one where the tiles would leave half of the
    /// SMs idle and K is long enough to share.
    pub fn parts(&self, p: &GemmProblem, info: &DeviceInfo) -> (usize, usize) {
        let (pieces, each) = match self.stage {
            Stage::Bytes => ((p.k * operand_bytes(p)).div_ceil(16), 4),
            Stage::Sparse => ((p.k * operand_bytes(p)).div_ceil(16), 8),
            Stage::Elements => (p.k, 16),
        };
        let stages = pieces.div_ceil(each);
        let wanted = (info.cores / self.tiles(p).max(1)).min(stages / 4).min(16);
        if wanted < 2 {
            return (1, pieces.max(1));
        }
        let part = stages.div_ceil(wanted);
        (stages.div_ceil(part), part * each)
    }

    /// Bytes of each row that a block has asked for beyond what it multiplies: one stage through registers, all but one by `cp.async`. Of other
    /// families it is not known, and taken for enough.
    fn ahead_bytes(&self) -> f64 {
        match self.family {
            "gemm_sm75" => 64.0,
            "gemm_sm80" => 3.0 * 64.0,
            "gemm_sparse" => 2.0 * 128.0,
            _ => f64::INFINITY,
        }
    }

    fn tiles(&self, p: &GemmProblem) -> usize {
        p.m.div_ceil(self.m) * p.n.div_ceil(self.n) * p.batch.numel()
    }
}

/// Bytes of one element of the operands.
pub(super) fn operand_bytes(p: &GemmProblem) -> usize {
    if p.quant.is_some() { 1 } else { p.b_as.size_bytes() }
}

/// Bytes of the operands, B's in the type it is multiplied in, and of the result.
pub(super) fn moved_bytes(p: &GemmProblem) -> f64 {
    let batches = |steps: &[usize]| p.batch.iter().zip(steps).filter(|s| *s.1 != 0).map(|s| *s.0).product::<usize>();
    let a = batches(&p.a.batch) * p.m * p.k * p.a.dtype.size_bytes();
    let matrices = p.pick.as_ref().map_or(batches(&p.b.batch), |stack| p.batch.numel().min(stack.count));
    let b = matrices * p.n * p.k * operand_bytes(p);
    (a + b + p.batch.numel() * p.m * p.top.unwrap_or(p.n) * p.stored().size_bytes()) as f64
}

/// Launches before the product where B is constant: A's rows are moved where they do not lie as kernels read them.
pub(super) fn prepared(p: &GemmProblem) -> usize {
    let bytes = p.k * operand_bytes(p);
    let dynamic = p.quant.as_ref().is_some_and(|q| q.dynamic.is_some());
    let moved = p.a.col != 1 || !bytes.is_multiple_of(16) || p.a.dtype.size_bytes() != operand_bytes(p);
    usize::from(dynamic || moved)
}

pub(super) fn cost_us(tile: &Tile, problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    let is_sparse = tile.stage == Stage::Sparse;
    let peak = match tile.family {
        // Four products and sums take as long as one of f32.
        "gemm_simt" => info.peaks.f32_gflops * if p.quant.is_some() { 4.0 } else { 1.0 },
        _ => tensor_peak(p, info) * mma_rate(info) * if is_sparse { 2.0 } else { 1.0 },
    };
    let (parts, _) = tile.parts(p, info);
    let blocks = tile.tiles(p) * parts;
    // A block alone on its SM computes at the SM's rate, many share it.
    let rounds = blocks.div_ceil(info.cores.max(1)) as f64;
    let block = 2.0 * (tile.m * tile.n) as f64 * p.k as f64 / parts as f64;
    let rate = peak * tile.share / info.cores.max(1) as f64;
    // What all tiles read, most of it from the L2 cache, which gives a few times what memory does.
    let element = if tile.stage == Stage::Elements { p.a.dtype.size_bytes() } else { operand_bytes(p) };
    // Of B's bytes those that are not there.
    let left_out = |bytes: usize| if is_sparse { bytes as f64 - stored_bytes(bytes as f64, element) } else { 0.0 };
    let read = ((tile.m + tile.n) * element) as f64 - left_out(tile.n * element);
    let read = read * (tile.tiles(p) * p.k) as f64;
    let compute_us = (rounds * block / rate.max(1e-3) / 1e3).max(read / (info.peaks.read_gbps.max(1.0) * 2.5e3));
    let rows = p.m.min(tile.m) as f64 + p.n.min(tile.n) as f64 * (1.0 - left_out(1));
    let on_their_way = blocks.min(RESIDENT * info.cores.max(1)) as f64 * rows * tile.ahead_bytes();
    let share = (on_their_way / MEMORY_US / (info.peaks.read_gbps.max(1.0) * 1e3)).min(0.8);
    let arrangements = if tile.stage == Stage::Elements { 0 } else { prepared(p) };
    let before = arrangements as f64 * launch_us(info, (p.m * p.k * 6) as f64, 0.8, 0.0);
    let after = if parts > 1 { launch_us(info, (parts * p.m * p.n * p.batch.numel() * 8) as f64, 0.8, 0.0) } else { 0.0 };
    before + launch_us(info, moved_bytes(p) - left_out(p.n * p.k * element), share, compute_us) + after
}

/// The peak of tensor cores for the operands.
pub(super) fn tensor_peak(p: &GemmProblem, info: &DeviceInfo) -> f64 {
    if p.quant.is_some() { info.peaks.int8_gops } else { info.peaks.f16_gflops }
}

/// Products of a warp beside the peak. On Hopper that is `wgmma`'s, of which `mma` reaches 62 %. Source: Luo et al., Benchmarking and Dissecting the
/// Nvidia Hopper GPU Architecture, arXiv 2402.13499, 2024.
fn mma_rate(info: &DeviceInfo) -> f64 {
    if info.capabilities.contains(Capabilities::SM_90A) { 0.62 } else { 1.0 }
}

/// Of kernels that read B once for up to [`FEW_ROWS`] rows.
pub(super) fn gemv_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    let Problem::Gemm(p) = problem else { return f64::INFINITY };
    let rate = info.peaks.f32_gflops * if p.quant.is_some() { 4.0 } else { 1.0 };
    let before = if p.quant.as_ref().is_some_and(|q| q.dynamic.is_some()) { launch_us(info, 0.0, 1.0, 0.0) } else { 0.0 };
    // A block has few columns: below a few blocks for each SM memory is not kept busy.
    let busy = (p.n as f64 * p.batch.numel() as f64 / (16.0 * info.cores.max(1) as f64)).min(1.0);
    before + launch_us(info, moved_bytes(p), 0.85 * busy.max(0.05), p.flops() / (rate * 0.4).max(1e-3) / 1e3)
}

/// A thread for each result, sums in f64 or 64-bit integers.
pub(super) fn any_us(problem: &Problem, info: &DeviceInfo) -> f64 {
    launch_us(info, 0.0, 1.0, problem.flops() * 64.0 / info.peaks.f32_gflops.max(1e-3) / 1e3)
}

pub(super) fn gemm(problem: &Problem) -> Result<&GemmProblem, &'static str> {
    let p = product(problem)?;
    if p.pick.is_some() { Err("no stacks of matrices") } else { Ok(p) }
}

/// Any product whose indexes fit.
pub(super) fn product(problem: &Problem) -> Result<&GemmProblem, &'static str> {
    let Problem::Gemm(p) = problem else { return Err("not a matrix product") };
    let elements = |x: usize, y: usize| p.batch.numel() * x.max(1).next_multiple_of(16) * y.max(1).next_multiple_of(16);
    if [elements(p.m, p.n), elements(p.m, p.k), elements(p.n, p.k)].iter().any(|&e| e > ELEMENTS) {
        return Err("at most 2^31 - 1 elements");
    }
    if !p.widths.is_empty() {
        return Err("one matrix of results");
    }
    if p.top.is_some() {
        listed(p)?;
    }
    if p.epilogue.as_ref().is_some_and(|e| e.operands.len() > 6) {
        return Err("at most 6 operands of the epilogue");
    }
    Ok(p)
}

/// Whether the largest results of each row can be kept while the product runs: see src/device/gpu/gemm/top.rs.
fn listed(p: &GemmProblem) -> Result<(), &'static str> {
    match () {
        _ if p.batch.numel() != 1 || p.out != DType::F32 || p.epilogue.is_some() => Err("the largest of plain f32 results only"),
        _ if p.c.as_ref().is_some_and(|c| c.row != 0 && p.m > 1) => Err("the largest of results without an addend for each row"),
        _ => Ok(()),
    }
}

/// Contractions that no kernel in f32 takes.
fn any(problem: &Problem) -> Result<(), &'static str> {
    if real(problem).is_ok() { Err("products that kernels in f32 take") } else { contraction(problem).map(drop) }
}

/// Products and contractions of operands of one type, which is that of the result.
pub(super) fn contraction(problem: &Problem) -> Result<&GemmProblem, &'static str> {
    let p = gemm(problem)?;
    let (kept, summed, operands) = match &p.contraction {
        Some(c) => (c.kept, c.sizes.len() - c.kept, c.steps.len()),
        None => (p.batch.rank() + 2, 1, 2),
    };
    let count = |sizes: &[usize]| sizes.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).is_some_and(|n| n <= ELEMENTS);
    let fits = p.contraction.as_ref().is_none_or(|c| count(&c.sizes[..c.kept]) && count(&c.sizes[c.kept..]));
    match () {
        _ if p.quant.is_some() => Err("no quantised products"),
        _ if p.top.is_some() => Err("all results"),
        _ if [p.b.dtype, p.b_as, p.out].iter().any(|&d| d != p.a.dtype) || p.out == DType::Bool => Err("operands of one type"),
        _ if kept > KEPT || summed > SUMMED || operands > OPERANDS => {
            Err("at most 8 labels of the result, 4 summed and 4 operands")
        }
        _ if !fits => Err("at most 2^31 - 1 elements"),
        _ if !p.out.is_float() && (p.alpha, p.beta) != (1.0, 1.0) => Err("scaled sums of integers"),
        _ => Ok(p),
    }
}

/// Few rows of floats: A of B's type, or of f32 where rows are whole 16-byte pieces of B.
pub(super) fn float_rows(problem: &Problem) -> Result<(), &'static str> {
    real(problem)?;
    let p = gemm(problem)?;
    match () {
        _ if p.m > FEW_ROWS => Err("at most 8 rows"),
        _ if p.a.dtype != p.b_as && (p.a.col != 1 || !(p.k * p.b_as.size_bytes()).is_multiple_of(16)) => {
            Err("rows in whole pieces")
        }
        _ => Ok(()),
    }
}

/// Few rows of bytes.
pub(super) fn int8_rows(problem: &Problem) -> Result<(), &'static str> {
    int8(problem)?;
    if gemm(problem)?.m <= FEW_ROWS { Ok(()) } else { Err("at most 8 rows") }
}

/// What the tiled kernels take: matrices over a few batch axes.
fn tiled(problem: &Problem) -> Result<&GemmProblem, &'static str> {
    let p = gemm(problem)?;
    if p.contraction.is_some() {
        return Err("sums that are no matrix product");
    }
    if p.batch.numel() > 65535 || p.batch.iter().filter(|&&d| d != 1).count() > 4 {
        return Err("at most 65535 matrices over 4 batch axes");
    }
    Ok(p)
}

/// f32, f16 and bf16 in f32: A and B of one type, or a f32 A with a B of fewer bits.
pub(super) fn real(problem: &Problem) -> Result<(), &'static str> {
    let p = tiled(problem)?;
    let float = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    let lowered = |from: DType, to: DType| from == to || from == DType::F32;
    match () {
        _ if p.quant.is_some() || ![p.a.dtype, p.b.dtype, p.b_as, p.out].into_iter().all(float) => Err("floats only"),
        _ if !lowered(p.b.dtype, p.b_as) || !lowered(p.a.dtype, p.b_as) => Err("operands of two 16-bit types"),
        _ => Ok(()),
    }
}

/// f16 or bf16, of an A that is so too or is rounded to it.
pub(super) fn half(problem: &Problem) -> Result<(), &'static str> {
    let p = tiled(problem)?;
    let float = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    let rounded = |d: DType| d == DType::F32 || d == p.b_as;
    match () {
        _ if p.quant.is_some() || !float(p.out) => Err("floats only"),
        _ if !matches!(p.b_as, DType::F16 | DType::BF16) => Err("a B of f16 or bf16 only"),
        _ if !rounded(p.a.dtype) || !rounded(p.b.dtype) => Err("operands of two 16-bit types"),
        _ => Ok(()),
    }
}

/// f16, which sm_75 multiplies, but not bf16.
fn f16(problem: &Problem) -> Result<(), &'static str> {
    half(problem)?;
    if gemm(problem)?.b_as == DType::F16 { Ok(()) } else { Err("f16 only") }
}

/// Exact 8-bit products with one scale and zero point for all, or for each row and column.
pub(super) fn int8(problem: &Problem) -> Result<(), &'static str> {
    let p = tiled(problem)?;
    p.quant.as_ref().map_or(Err("quantised operands only"), |_| Ok(()))?;
    refusal(p).map_or(Ok(()), Err)
}

/// Why records of rows and columns (src/device/cuda/gemm/int8.rs) cannot say what a quantised product asks for, if they cannot.
fn refusal(p: &GemmProblem) -> Option<&'static str> {
    let q = p.quant.as_ref()?;
    let scales = [&q.a_scale, &q.b_scale, &q.out_scale];
    let zeros = [&q.a_zero, &q.b_zero, &q.out_zero];
    let byte = |d: DType| matches!(d, DType::I8 | DType::U8);
    let typed = scales.into_iter().flatten().all(|s| s.dtype == DType::F32) && zeros.into_iter().flatten().all(|z| byte(z.dtype));
    let integers = p.c.as_ref().filter(|c| c.dtype == DType::I32);
    let dynamic = q.dynamic.is_some();
    let still = |q: &Option<Param>| Param::is_one(q.as_ref());
    match () {
        _ if dynamic != (p.a.dtype == DType::F32) || !(byte(p.a.dtype) || dynamic) => {
            Some("A is neither bytes nor f32 to be quantised")
        }
        _ if (!byte(p.b.dtype) && p.b.dtype != DType::F32) || !typed => Some("a scale or zero point of an unknown type"),
        _ if dynamic && (q.a_zero.is_some() || q.a_scale.is_some() || q.out_scale.is_some()) => {
            Some("scales beside dynamic ones")
        }
        _ if p.b.dtype == DType::F32 && !dynamic => Some("B is rounded beside a dynamic A alone"),
        _ if !still(&q.out_scale) || !still(&q.out_zero) => Some("scales of the output that differ"),
        _ if q.out_scale.is_some() && !still(&q.a_scale) && !still(&q.b_scale) => Some("scales of rows, columns and output"),
        _ if integers.is_some_and(|c| c.row != 0 || c.batch.iter().any(|&s| s != 0)) => {
            Some("integer addends that differ by row")
        }
        _ => None,
    }
}
