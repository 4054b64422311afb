//! Grouped products: which matrix of a stack B is, each item says while running. The stack is read as it lies.

use super::super::call::{Call, GpuKernel};
use super::super::device::failed;
use super::super::launch::{Arg, Launch, Pointer};
use super::super::variant::Variant;
use super::epilogue::Epilogue;
use super::tile::gemm;
use crate::base::DType;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::error::Result;
use crate::kernel::gpu::picked::{ROWS, width};

/// A row's code.
pub const fn kernel(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: no_scratch, launches }
}

fn launches(call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    let stack = p.pick.as_ref().ok_or_else(|| failed("a product without a stack"))?;
    let items = p.batch.numel();
    if items * p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    let weights = match p.b.dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        _ => "bf16",
    };
    let (rows, width) = (if p.m == 1 { 1 } else { ROWS }, width(p));
    let inputs = [p.a.input, p.b.input, stack.input].map(|i| Pointer::Input(i, 0));
    let mut args: Vec<Arg> = inputs.into_iter().chain([Pointer::Status]).map(Arg::Pointer).collect();
    let words = stack.dtype.size_bytes() / 4;
    let numbers = [p.m, p.n, p.k, p.a.batch[0], p.a.row, words, stack.count, width.ilog2() as usize];
    args.extend(numbers.map(|n| Arg::U32(n as u32)));
    let grid = [p.n.div_ceil(width), p.m.div_ceil(rows), items].map(|n| n as u32);
    let variant = Variant::named(&format!("gemm_picked_f32_{weights}_{rows}"));
    Ok(vec![Epilogue::new(call, p, DType::F32)?.complete(Launch::new(variant, grid, args))])
}
