//! Any matrix product or contraction of operands of one type, a thread for each result: what no other kernel takes.

use super::super::call::{Call, GpuKernel};
use super::super::device::failed;
use super::super::divide::magic;
use super::super::launch::{Arg, Launch, Pointer};
use super::super::variant::Variant;
use super::epilogue::Epilogue;
use super::tile::gemm;
use crate::base::DType;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::error::Result;
use crate::graph::problem::gemm::{Contraction, GemmProblem};
use crate::kernel::gpu::gemm::{KEPT, OPERANDS, SUMMED};

/// A row's code.
pub const fn kernel(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: no_scratch, launches }
}

/// A product as a contraction of the labels batch, m, n and k.
fn product(p: &GemmProblem) -> Contraction {
    let sizes = p.batch.iter().copied().chain([p.m, p.n, p.k]).collect();
    let steps = |batch: &[usize], rest: [usize; 3]| batch.iter().copied().chain(rest).collect();
    let (a, b) = (steps(&p.a.batch, [p.a.row, 0, p.a.col]), steps(&p.b.batch, [0, p.b.col, p.b.row]));
    Contraction { sizes, kept: p.batch.rank() + 2, steps: vec![a, b] }
}

fn launches(call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    let (c, inputs) = match &p.contraction {
        Some(c) => (c.clone(), (0..c.steps.len()).collect::<Vec<_>>()),
        None => (product(p), vec![p.a.input, p.b.input]),
    };
    let (kept, summed) = c.sizes.split_at(c.kept);
    let (count, inner) = (kept.iter().product::<usize>(), summed.iter().product::<usize>());
    if count == 0 {
        return Ok(Vec::new());
    }
    let value = match (p.out, &p.epilogue) {
        (DType::F64, None) => DType::F64,
        (out, None) if !out.is_float() => DType::I64,
        _ => DType::F32,
    };
    let element = name(p.a.dtype).ok_or_else(|| failed("a product of this element type"))?;
    let result = match value {
        DType::F64 => "f64",
        DType::I64 => "s64",
        _ => "f32",
    };
    let variant = Variant::named(&format!("gemm_any_{element}_{result}"));
    let pointer = |o: usize| Arg::Pointer(inputs.get(o).map_or(Pointer::Null, |&i| Pointer::Input(i, 0)));
    let mut args: Vec<Arg> = (0..OPERANDS).map(pointer).collect();
    args.extend([inputs.len(), count, inner].map(|n| Arg::U32(n as u32)));
    args.push(axes(&c));
    let launch = Launch::new(variant, [count.div_ceil(variant.threads as usize) as u32, 1, 1], args);
    Ok(vec![Epilogue::new(call, p, value)?.complete(launch)])
}

/// Size, multiplier and shift of each label, the result's and then the summed ones, and each operand's step along each. Labels
/// that are not there come first and have size 1.
fn axes(c: &Contraction) -> Arg {
    let place = |axis: usize| match axis {
        _ if axis < KEPT => (axis + c.kept).checked_sub(KEPT),
        _ => (axis + c.sizes.len()).checked_sub(KEPT + SUMMED).filter(|&label| label >= c.kept),
    };
    let mut parts = Vec::new();
    for axis in 0..KEPT + SUMMED {
        let size = place(axis).map_or(1, |label| c.sizes[label] as u32);
        let (magic, shift) = magic(size);
        parts.extend([size, magic, shift].map(Arg::U32));
    }
    for operand in 0..OPERANDS {
        let step = |axis: usize| place(axis).and_then(|label| Some(c.steps.get(operand)?[label])).unwrap_or(0);
        parts.extend((0..KEPT + SUMMED).map(|axis| Arg::U32(step(axis) as u32)));
    }
    Arg::Block(parts)
}

/// The type's name in the kernels' names.
fn name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::I8 => "s8",
        DType::U8 => "u8",
        DType::I16 => "s16",
        DType::U16 => "u16",
        DType::I32 => "s32",
        DType::U32 => "u32",
        DType::I64 => "s64",
        DType::U64 => "u64",
        DType::Bool => return None,
    })
}
