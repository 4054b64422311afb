//! Float products in f32 without tensor cores: operands are read as they lie, whatever their strides; only a B that is lowered to
//! fewer bits is packed, or arranged, first.

use super::super::call::{Call, GpuKernel};
use super::super::launch::{Arg, Launch, Pointer};
use super::operand::{Preparation, Side, axes, source};
use super::tile::{finished, gemm, partial};
use super::top;
use super::{int8::Records, pack};
use crate::base::{DType, Tensor};
use crate::device::cpu::Packed;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::DeviceInfo;
use crate::kernel::gpu::gemm::Tile;

/// Where a side's element `[row, k]` lies.
struct Strided {
    at: Pointer,
    row: usize,
    step: usize,
    batch: Vec<usize>,
}

fn strided(to: &mut Preparation, side: Side, packed: bool) -> Result<Strided> {
    let p = to.p;
    let source = source(p, side);
    if side == Side::B && p.b.dtype != p.b_as {
        let b = to.operand(side, p.b_as, packed)?;
        return Ok(Strided { at: b.at, row: b.pitch, step: 1, batch: b.batch });
    }
    let at = Pointer::Input(source.matrix.input, 0);
    Ok(Strided { at, row: source.row, step: source.step, batch: source.matrix.batch.to_vec() })
}

fn pack(problem: &Problem, constants: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let p = gemm(problem)?;
    if p.b.dtype == p.b_as { Ok(None) } else { pack::pack(p, p.b_as, constants) }
}

pub fn scratch_bytes(tile: &Tile, problem: &Problem, info: &DeviceInfo) -> usize {
    let of = |p: &GemmProblem| -> Result<usize> {
        let mut to = Preparation::new(p);
        strided(&mut to, Side::B, false)?;
        partial(&mut to, tile.parts(p, info).0);
        Ok(top::scratch_bytes(to))
    };
    gemm(problem).and_then(of).unwrap_or(0)
}

pub fn launches(tile: &Tile, call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    let parts = tile.parts(p, call.info);
    if p.batch.numel() * p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    let mut to = Preparation::new(p);
    let (a, b) = (strided(&mut to, Side::A, false)?, strided(&mut to, Side::B, call.packed.is_some())?);
    let types = match (p.a.dtype, p.b_as) {
        (DType::F32, DType::F32) => "f32",
        (DType::F32, DType::F16) => "f32_f16",
        (DType::F32, _) => "f32_bf16",
        (DType::F16, _) => "f16",
        _ => "bf16",
    };
    let sums = partial(&mut to, parts.0);
    top::each(to, call, |to, columns| {
        let p = columns.p;
        let mut args: Vec<Arg> = [a.at, b.at.after(columns.first * b.row * p.b_as.size_bytes())].map(Arg::Pointer).to_vec();
        args.extend([p.m, p.n, p.k, parts.1, a.row, a.step, b.row, b.step].map(|n| Arg::U32(n as u32)));
        args.push(axes(&p.batch, &[a.batch.clone(), b.batch.clone()])?.argument());
        let launch = Launch::new(tile.variant(types), tile.grid(p, parts.0), args);
        finished(to, columns, launch, sums.map(|at| (parts.0, at)), &Records::none(p))
    })
}

/// A row's code.
pub const fn kernel(
    name: &'static str,
    scratch_bytes: fn(&Problem, &DeviceInfo) -> usize,
    launches: fn(&Call) -> Result<Vec<Launch>>,
) -> GpuKernel {
    GpuKernel { name, pack, scratch_bytes, launches }
}
