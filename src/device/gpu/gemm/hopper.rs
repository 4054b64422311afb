//! The launches of the kernels for Hopper's own instructions. Operands are read through tensor maps: rows at multiples of 16 bytes,
//! as [`super::operand`] makes them, and matrices of a batch evenly apart; what lies beyond an extent reads as zero and is not
//! written, so no extent needs to be a multiple of a tile's.

use super::super::call::{Call, GpuKernel};
use super::super::device::failed;
use super::super::launch::{Arg, Element, Launch, Pointer, TensorMap};
use super::super::variant::Variant;
use super::int8::Terms;
use super::operand::{Operand, Preparation};
use super::tile::{Operands, gemm, kernel, operands, value};
use super::top;
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::DeviceInfo;
use crate::kernel::gpu::hopper::{W64X256, W128X128, W128X256, W128X256_C2, Wide, boxes, scaled_only, stride, unsigned};

pub(in crate::device::gpu) static KERNELS: &[GpuKernel] = &[
    kernel("sm90-half-128x256", scratch_bytes, |c| launches(&W128X256, c)),
    kernel("sm90-half-128x256-c2", scratch_bytes, |c| launches(&W128X256_C2, c)),
    kernel("sm90-half-128x128", scratch_bytes, |c| launches(&W128X128, c)),
    kernel("sm90-half-64x256", scratch_bytes, |c| launches(&W64X256, c)),
    kernel("sm90-half-few", few_scratch_bytes, few_launches),
    kernel("sm90-int8-128x256", scratch_bytes, |c| launches(&W128X256, c)),
    kernel("sm90-int8-128x256-c2", scratch_bytes, |c| launches(&W128X256_C2, c)),
    kernel("sm90-int8-128x128", scratch_bytes, |c| launches(&W128X128, c)),
    kernel("sm90-int8-few", few_scratch_bytes, few_launches),
];

/// Bytes of K of a row in a slot of the ring, and of a row of a box of results.
pub(super) const SLOT: usize = 128;

/// As [`stride`], which the rows of the kernel table have seen to be there.
pub(super) fn evenly(batch: &Shape, steps: &[usize]) -> Result<usize> {
    stride(batch, steps).ok_or_else(|| failed("matrices of a batch that are not evenly apart"))
}

/// The map of an operand's `rows` rows, in boxes of a slot's bytes of K and `extent` rows, with `dims` dimensions (3: with the batch),
/// and what to count its matrices by: 0 where all of a batch share one, else 1.
pub(super) fn map(p: &GemmProblem, o: &Operand, rows: usize, extent: usize, dims: usize) -> Result<(TensorMap, usize)> {
    let bytes = o.dtype.size_bytes();
    let step = evenly(&p.batch, &o.batch)?;
    let matrices = if step == 0 { 1 } else { p.batch.numel() };
    let pitch = (o.pitch * bytes).next_multiple_of(16) as u64;
    let strides = vec![pitch, if step == 0 { pitch } else { (step * bytes) as u64 }];
    let mut map = TensorMap {
        base: o.at,
        element: element(o.dtype),
        dims: vec![p.k as u64, rows as u64, matrices as u64],
        strides,
        extents: vec![(SLOT / bytes) as u32, extent as u32, 1],
        swizzle_bytes: 128,
    };
    map.dims.truncate(dims);
    map.extents.truncate(dims);
    map.strides.truncate(dims - 1);
    Ok((map, usize::from(step != 0)))
}

fn element(dtype: DType) -> Element {
    match dtype {
        DType::F16 => Element::F16,
        DType::BF16 => Element::BF16,
        _ => Element::U8,
    }
}

/// The map of the results, in boxes of 64 x 64.
fn results(p: &GemmProblem) -> TensorMap {
    let (n, m) = (p.n as u64, p.m as u64);
    TensorMap {
        base: Pointer::Output(0, 0),
        element: element(p.stored()),
        dims: vec![n, m, p.batch.numel() as u64],
        strides: vec![n * 2, n * m * 2],
        extents: vec![64, 64, 1],
        swizzle_bytes: 128,
    }
}

/// Operand types as in the texts' names.
fn types(p: &GemmProblem) -> &'static str {
    match (p.quant.is_some(), p.b_as) {
        (true, _) if unsigned(p) => "u8s8",
        (true, _) => "s8",
        (_, DType::BF16) => "bf16",
        _ => "f16",
    }
}

fn variant(tile: &Wide, p: &GemmProblem) -> &'static Variant {
    let what = match (p.quant.is_some(), value(p)) {
        (false, _) => "",
        (_, DType::I32) => "_terms",
        _ if scaled_only(p) => "_scaled",
        _ => "_scaled_terms",
    };
    let cluster = if tile.cluster > 1 { "_c2" } else { "" };
    let out = if boxes(p) { "" } else { "_any" };
    Variant::named(&format!("gemm_sm90_{}{what}_{}x{}{cluster}{out}", types(p), tile.m, tile.n))
}

pub(super) fn scratch_bytes(problem: &Problem, _: &DeviceInfo) -> usize {
    let of = |p: &GemmProblem| -> Result<usize> {
        let mut to = Preparation::new(p);
        operands(&mut to, false)?;
        Ok(top::scratch_bytes(to))
    };
    gemm(problem).and_then(of).unwrap_or(0)
}

fn launches(tile: &Wide, call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    if p.batch.numel() * p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    let mut to = Preparation::new(p);
    let o = operands(&mut to, call.packed.is_some())?;
    top::each(to, call, |to, columns| {
        let (p, o) = (columns.p, o.starting_at(columns.first));
        let blocks = tile.clusters(p, call.info) * tile.cluster;
        let product = Launch::new(variant(tile, p), [blocks as u32, 1, 1], arguments(tile, p, &o, call.info)?);
        to.launches.push(columns.epilogue.complete(product));
        Ok(())
    })
}

fn arguments(tile: &Wide, p: &GemmProblem, o: &Operands, info: &DeviceInfo) -> Result<Vec<Arg>> {
    let (a, a_batch) = map(p, &o.a, p.m, tile.m, 3)?;
    let (b, b_batch) = map(p, &o.b, p.n, tile.n / tile.cluster, 3)?;
    let mut args = vec![Arg::Map(a), Arg::Map(b)];
    if boxes(p) {
        args.push(Arg::Map(results(p)));
    }
    let [tiles_m, tiles_n, tiles] = tile.tiles(p);
    let slots = (p.k * o.b.dtype.size_bytes()).div_ceil(SLOT);
    let numbers = [p.m, p.n, slots, tiles_m, tiles_n, tiles, tile.group(info), a_batch, b_batch];
    args.extend(numbers.map(|n| Arg::U32(n as u32)));
    if p.quant.is_some() {
        for Terms { at, batch } in [&o.records.rows, &o.records.columns] {
            args.extend([Arg::Pointer(*at), Arg::U32(evenly(&p.batch, batch)? as u32)]);
        }
    }
    Ok(args)
}

/// How a product of few rows is shared out.
struct Share {
    variant: &'static Variant,
    /// Slots of K, tiles of B's rows, slots of one block, blocks.
    slots: usize,
    tiles: usize,
    share: usize,
    blocks: usize,
}

impl Share {
    fn new(p: &GemmProblem, info: &DeviceInfo) -> Share {
        let tokens = p.m.next_power_of_two().max(8);
        let variant = Variant::named(&format!("gemm_sm90_skinny_{}_{tokens}", types(p)));
        let bytes = if p.quant.is_some() { 1 } else { p.b_as.size_bytes() };
        let (slots, tiles) = ((p.k * bytes).div_ceil(SLOT), p.n.div_ceil(variant.number("rows") as usize));
        let share = (slots * tiles).div_ceil(info.cores.max(1)).max(1);
        Share { variant, slots, tiles, share, blocks: (slots * tiles).div_ceil(share) }
    }

    /// A place for what each block sums up of each tile.
    fn sums(&self, to: &mut Preparation, info: &DeviceInfo) -> Pointer {
        let segment = self.variant.number("tokens") as usize * self.variant.number("rows") as usize * 4;
        // Of fewer columns there may be more blocks, but never more than this.
        let blocks = info.cores.max(1).min(self.slots * self.tiles);
        to.take((blocks + self.tiles) * segment)
    }

    fn product(&self, p: &GemmProblem, o: &Operands, sums: &Arg) -> Result<Launch> {
        let (tokens, rows) = (self.variant.number("tokens") as usize, self.variant.number("rows") as usize);
        let (w, x) = (map(p, &o.b, p.n, rows, 2)?.0, map(p, &o.a, p.m, tokens, 2)?.0);
        let units = [self.slots, self.slots * self.tiles, self.share].map(|n| Arg::U32(n as u32));
        let args = [Arg::Map(w), Arg::Map(x), sums.clone()].into_iter().chain(units).collect();
        Ok(Launch::new(self.variant, [self.blocks as u32, 1, 1], args))
    }

    fn sum(&self, p: &GemmProblem, o: &Operands, sums: Arg) -> Launch {
        let reduce = Variant::named(match (p.quant.is_some(), value(p)) {
            (false, _) => "gemm_sm90_skinny_reduce_f32",
            (_, DType::I32) => "gemm_sm90_skinny_reduce_s32",
            _ => "gemm_sm90_skinny_reduce_s32_f32",
        });
        let (tokens, rows) = (self.variant.number("tokens") as usize, self.variant.number("rows") as usize);
        let mut args = vec![sums];
        args.extend([p.n, self.slots, self.share, tokens, rows].map(|n| Arg::U32(n as u32)));
        if p.quant.is_some() {
            args.extend([o.records.rows.at, o.records.columns.at].map(Arg::Pointer));
        }
        Launch::new(reduce, [p.n.div_ceil(2 * reduce.threads as usize) as u32, p.m as u32, 1], args)
    }
}

fn few_scratch_bytes(problem: &Problem, info: &DeviceInfo) -> usize {
    let of = |p: &GemmProblem| -> Result<usize> {
        let mut to = Preparation::new(p);
        operands(&mut to, false)?;
        Share::new(p, info).sums(&mut to, info);
        Ok(top::scratch_bytes(to))
    };
    gemm(problem).and_then(of).unwrap_or(0)
}

fn few_launches(call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    if p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    let mut to = Preparation::new(p);
    let o = operands(&mut to, call.packed.is_some())?;
    let sums = Arg::Pointer(Share::new(p, call.info).sums(&mut to, call.info));
    top::each(to, call, |to, columns| {
        let (p, o) = (columns.p, o.starting_at(columns.first));
        let share = Share::new(p, call.info);
        to.launches.push(share.product(p, &o, &sums)?);
        to.launches.push(columns.epilogue.complete(share.sum(p, &o, sums.clone())));
        Ok(())
    })
}
