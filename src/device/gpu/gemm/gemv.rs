//! Products of few rows: B is read once, by blocks of four columns.

use super::super::call::Call;
use super::super::launch::Launch;
use super::super::variant::Variant;
use super::int8::{self, Records};
use super::operand::{Preparation, Side};
use super::tile::{Operands, arguments, gemm, value};
use super::top;
use crate::base::DType;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::DeviceInfo;

/// Columns of a block.
const COLUMNS: usize = 4;

fn operands(to: &mut Preparation, packed: bool) -> Result<Operands> {
    let p = to.p;
    if p.quant.is_some() {
        let (a, b, records) = int8::prepare(to, packed)?;
        return Ok(Operands { a, b, records });
    }
    // A f32 A keeps its bits beside a B of fewer.
    let (a, b) = (to.operand(Side::A, p.a.dtype, false)?, to.operand(Side::B, p.b_as, packed)?);
    Ok(Operands { a, b, records: Records::none(p) })
}

/// Scratch of [`launches`] when B is not packed.
pub fn scratch_bytes(problem: &Problem, _: &DeviceInfo) -> usize {
    let of = |p: &GemmProblem| -> Result<usize> {
        let mut to = Preparation::new(p);
        operands(&mut to, false)?;
        Ok(top::scratch_bytes(to))
    };
    gemm(problem).and_then(of).unwrap_or(0)
}

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::I8 => "s8",
        _ => "u8",
    }
}

/// Operands made ready, and the product.
pub fn launches(call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    if p.batch.numel() * p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    let mut to = Preparation::new(p);
    let operands = operands(&mut to, call.packed.is_some())?;
    let rows = [1, 4, 8].into_iter().find(|&r| p.m <= r).unwrap_or(8);
    let (a, b) = (operands.a.dtype, operands.b.dtype);
    let text = match (a, value(p)) {
        (DType::I8 | DType::U8, DType::I32) => format!("gemv_{}_s8_s32_{rows}", name(a)),
        (DType::I8 | DType::U8, _) => format!("gemv_{}_s8_f32_{rows}", name(a)),
        _ => format!("gemv_{}_{}_{rows}", name(a), name(b)),
    };
    top::each(to, call, |to, columns| {
        let p = columns.p;
        let grid = [p.n.div_ceil(COLUMNS) as u32, 1, p.batch.numel() as u32];
        let launch = Launch::new(Variant::named(&text), grid, arguments(p, &operands.starting_at(columns.first), 0, true)?);
        to.launches.push(columns.epilogue.complete(launch));
        Ok(())
    })
}
