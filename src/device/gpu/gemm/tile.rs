//! The launches of a tiled kernel: operands made ready, the product, and, where it is computed in parts along K, their sum.
//!
//! A tiled kernel has the entry parameters that [`arguments`] lists and the grid `(tiles, parts, matrices)`. It reads operands as
//! [`super::operand`] describes, so that every 16 bytes of a row are whole elements: rows past M or N, and bytes past K, count as
//! zeros. The value at its slot is f32, or of quantised products the s32 sum where that is what is stored.

use super::super::call::{Call, GpuKernel};
use super::super::device::failed;
use super::super::launch::{Arg, Launch, Pointer};
use super::super::variant::Variant;
use super::epilogue::Epilogue;
use super::int8::{self, Records};
use super::operand::{Operand, Preparation, Side, axes};
use super::pack;
use super::top::{self, Columns};
use crate::base::sparse::pitch_bytes;
use crate::base::{DType, Tensor};
use crate::device::cpu::{Packed, call::Pack};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::{Dynamic, GemmProblem};
use crate::hardware::DeviceInfo;
use crate::kernel::gpu::gemm::{Stage, Tile};

/// Both sides of a product, made ready.
#[derive(Clone)]
pub struct Operands {
    /// Rows of the output.
    pub a: Operand,
    /// Columns of the output.
    pub b: Operand,
    /// Of quantised products.
    pub records: Records,
}

impl Operands {
    /// The same without B's columns before `first`.
    pub fn starting_at(&self, first: usize) -> Operands {
        let mut from = self.clone();
        from.b.at = from.b.at.after(first * from.b.pitch * from.b.dtype.size_bytes());
        from.records.columns.at = from.records.columns.at.after(first * 16);
        from
    }
}

/// The problem of a call to this family.
pub fn gemm(problem: &Problem) -> Result<&GemmProblem> {
    match problem {
        Problem::Gemm(p) => Ok(p),
        _ => Err(failed("a matrix product's kernel was given another family's problem")),
    }
}

/// Element type of the kernel's B: that of A too, unless both are bytes.
pub fn element(p: &GemmProblem) -> DType {
    if p.quant.is_some() { DType::I8 } else { p.b_as }
}

/// Element type of the kernel's A.
pub fn element_a(p: &GemmProblem) -> DType {
    match p.quant.as_ref().map(|q| q.dynamic) {
        None => p.b_as,
        Some(None) => p.a.dtype,
        Some(Some(Dynamic::RowI8)) => DType::I8,
        Some(Some(Dynamic::TensorU8 | Dynamic::RowU8)) => DType::U8,
    }
}

/// Type of the kernel's value.
pub fn value(p: &GemmProblem) -> DType {
    if p.quant.is_some() && p.out == DType::I32 && p.epilogue.is_none() { DType::I32 } else { DType::F32 }
}

/// Makes both sides ready.
pub fn operands(to: &mut Preparation, packed: bool) -> Result<Operands> {
    let p = to.p;
    if p.quant.is_some() {
        let (a, b, records) = int8::prepare(to, packed)?;
        return Ok(Operands { a, b, records });
    }
    let a = to.operand(Side::A, element(p), false)?;
    let b = to.operand(Side::B, element(p), packed)?;
    Ok(Operands { a, b, records: Records::none(p) })
}

/// What tells a family's texts apart: operand and value types.
pub fn suffix(p: &GemmProblem, value: DType) -> &'static str {
    match (element_a(p), value) {
        (DType::F16, _) => "f16",
        (DType::BF16, _) => "bf16",
        (DType::I8, DType::I32) => "s8_s32",
        (DType::I8, _) => "s8_f32",
        (_, DType::I32) => "u8_s32",
        _ => "u8_f32",
    }
}

/// The arguments of a tiled kernel, without `finish`: addresses of A, B and the records; M, N, 16-byte pieces of a row of B, bytes from
/// row to row of A and B, pieces of a part, whether the records correct sums; the batch axes with the steps of the four, in
/// elements and records. A kernel that leaves its sums to [`reduce`] (`whole` not set) is given no records.
pub fn arguments(p: &GemmProblem, o: &Operands, part: usize, whole: bool) -> Result<Vec<Arg>> {
    let bytes = |o: &Operand, elements: usize| elements * o.dtype.size_bytes();
    let Records { rows, columns, corrects } = &o.records;
    let records = if whole { [rows.at, columns.at] } else { [Pointer::Null; 2] };
    let mut args: Vec<Arg> = [o.a.at, o.b.at].into_iter().chain(records).map(Arg::Pointer).collect();
    let chunks = bytes(&o.b, p.k).div_ceil(16);
    let numbers = [p.m, p.n, chunks, bytes(&o.a, o.a.pitch), bytes(&o.b, o.b.pitch), part, (*corrects && whole).into()];
    args.extend(numbers.map(|n| Arg::U32(n as u32)));
    let steps = [&o.a.batch, &o.b.batch, &rows.batch, &columns.batch].map(Clone::clone);
    args.push(axes(&p.batch, &steps)?.argument());
    Ok(args)
}

/// Packs B for the tiled kernels.
pub fn pack(problem: &Problem, constants: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let p = gemm(problem)?;
    pack::pack(p, element(p), constants)
}

/// Scratch of [`launches`] when B is not packed.
pub fn scratch_bytes(tile: &Tile, problem: &Problem, info: &DeviceInfo) -> usize {
    let of = |p: &GemmProblem| -> Result<usize> {
        let mut to = Preparation::new(p);
        operands(&mut to, false)?;
        partial(&mut to, tile.parts(p, info).0);
        Ok(top::scratch_bytes(to))
    };
    gemm(problem).and_then(of).unwrap_or(0)
}

/// A place for the products of all parts; none when there is but one.
pub fn partial(to: &mut Preparation, parts: usize) -> Option<Pointer> {
    let p = to.p;
    (parts > 1).then(|| to.take(parts * p.batch.numel() * p.m * p.n * 4))
}

/// The launches of a tiled kernel whose texts are named `<family>_<types>_<M>x<N>`.
pub fn launches(tile: &Tile, call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    if p.batch.numel() * p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    let (parts, part) = tile.parts(p, call.info);
    let mut to = Preparation::new(p);
    let mut operands = operands(&mut to, call.packed.is_some())?;
    if tile.stage == Stage::Sparse {
        call.packed.ok_or_else(|| failed("weights that were not packed"))?;
        let size = operands.b.dtype.size_bytes();
        operands.b.pitch = pitch_bytes(p.n, size) / size;
    }
    let sums = partial(&mut to, parts);
    let types = suffix(p, if parts == 1 { value(p) } else { sum(p) });
    top::each(to, call, |to, columns| {
        let (p, operands) = (columns.p, operands.starting_at(columns.first));
        let launch = Launch::new(tile.variant(types), tile.grid(p, parts), arguments(p, &operands, part, parts == 1)?);
        finished(to, columns, launch, sums.map(|at| (parts, at)), &operands.records)
    })
}

/// The grid of a tiled kernel, and its text.
impl Tile {
    /// Tiles, parts of K, matrices.
    pub fn grid(&self, p: &GemmProblem, parts: usize) -> [u32; 3] {
        [(p.m.div_ceil(self.m) * p.n.div_ceil(self.n)) as u32, parts as u32, p.batch.numel() as u32]
    }

    /// The text for these operands and values.
    pub fn variant(&self, types: &str) -> &'static Variant {
        Variant::named(&format!("{}_{types}_{}x{}", self.family, self.m, self.n))
    }
}

/// The product with what follows it, or the products of so many parts, which go to this place, and their sum.
pub fn finished(
    to: &mut Preparation,
    columns: &Columns,
    product: Launch,
    parts: Option<(usize, Pointer)>,
    records: &Records,
) -> Result<()> {
    let Columns { p, epilogue, .. } = columns;
    match parts {
        None => to.launches.push(epilogue.complete(product)),
        Some((parts, at)) => {
            to.launches.push(Epilogue::plain(p, sum(p), parts, at)?.complete(product));
            to.launches.push(epilogue.complete(reduce(p, records, parts, at)?));
        }
    }
    Ok(())
}

/// Type of a product's sum.
fn sum(p: &GemmProblem) -> DType {
    if p.quant.is_some() { DType::I32 } else { DType::F32 }
}

/// The launch that adds up the products of the parts, in their order, and stores results.
fn reduce(p: &GemmProblem, o: &Records, parts: usize, at: Pointer) -> Result<Launch> {
    let variant = Variant::named(match (sum(p), value(p)) {
        (DType::F32, _) => "gemm_reduce_f32",
        (_, DType::F32) => "gemm_reduce_s32_f32",
        _ => "gemm_reduce_s32",
    });
    let elements = p.m * p.n;
    let grid = [elements.div_ceil(variant.threads as usize) as u32, 1, p.batch.numel() as u32];
    let mut args: Vec<Arg> = [at, o.rows.at, o.columns.at].map(Arg::Pointer).to_vec();
    args.extend([parts, p.m, p.n, o.corrects.into()].map(|n| Arg::U32(n as u32)));
    args.push(axes(&p.batch, &[o.rows.batch.clone(), o.columns.batch.clone()])?.argument());
    Ok(Launch::new(variant, grid, args))
}

/// A row's code.
pub const fn kernel(
    name: &'static str,
    scratch_bytes: fn(&Problem, &DeviceInfo) -> usize,
    launches: fn(&Call) -> Result<Vec<Launch>>,
) -> GpuKernel {
    GpuKernel { name, pack: pack as Pack, scratch_bytes, launches }
}
