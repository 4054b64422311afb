//! Formulas over broadcast operands: vectors of elements where they can be, else one after the other.

use std::sync::Arc;

use super::call::{Call, GpuKernel};
use super::device::failed;
use super::finish::Finish;
use super::launch::{Arg, Launch, Pointer};
use super::variant::Variant;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::error::Result;
use crate::graph::{Problem, Type};
use crate::scalar::Formula;

pub(super) static KERNELS: &[GpuKernel] = &[kernel("any-scalar"), kernel("any-scalar64")];

const fn kernel(name: &'static str) -> GpuKernel {
    GpuKernel { name, pack: pack_nothing, scratch_bytes: no_scratch, launches }
}

fn launches(call: &Call) -> Result<Vec<Launch>> {
    let Problem::Scalar(p) = call.problem else { return Err(failed("not elementwise work")) };
    let operands: Vec<Pointer> = (0..p.operands.len()).map(|i| Pointer::Input(i, 0)).collect();
    elementwise(&p.formula, &p.operands, &operands, &p.out, Pointer::Output(0, 0))
}

/// The launch that stores a formula of broadcast operands, none when there are no elements. Other families end with it too.
pub(super) fn elementwise(formula: &Formula, types: &[Type], from: &[Pointer], out: &Type, to: Pointer) -> Result<Vec<Launch>> {
    let elements = out.shape.numel();
    if elements == 0 {
        return Ok(Vec::new());
    }
    let finish = Arc::new(Finish::new(None, formula, types, out)?);
    Ok(vec![stored(&finish, elements, to, from)])
}

/// Stores `elements` results of a formula, which has no value of a kernel, of the operands. All addresses are multiples of 16 bytes.
pub(super) fn stored(finish: &Arc<Finish>, elements: usize, to: Pointer, operands: &[Pointer]) -> Launch {
    let (name, vector) = if finish.vector > 1 { ("scalar_vector", finish.vector) } else { ("scalar", 1) };
    let variant = Variant::named(name);
    let mut args = vec![Arg::U32(elements as u32)];
    let each = if vector > 1 { vector } else { variant.number("each") as usize };
    args.extend((vector > 1).then_some(Arg::U32(vector as u32)));
    let blocks = elements.div_ceil(variant.threads as usize * each);
    Launch::new(variant, [blocks as u32, 1, 1], args).finished(finish, to, operands)
}
