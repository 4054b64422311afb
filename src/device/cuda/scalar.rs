//! Formulas over broadcast operands: one thread an element.

use std::sync::Arc;

use super::call::{Call, CudaKernel};
use super::device::failed;
use super::finish::Finish;
use super::launch::{Arg, Launch, Pointer};
use super::variant::Variant;
use crate::device::cpu::call::{no_scratch, pack_nothing};
use crate::error::Result;
use crate::graph::Problem;

pub(super) static KERNELS: &[CudaKernel] =
    &[CudaKernel { name: "cuda-any-scalar", pack: pack_nothing, scratch_bytes: no_scratch, launches }];

fn launches(call: &Call) -> Result<Vec<Launch>> {
    let Problem::Scalar(p) = call.problem else { return Err(failed("not elementwise work")) };
    let elements = p.out.shape.numel();
    if elements == 0 {
        return Ok(Vec::new());
    }
    let finish = Arc::new(Finish::new(None, &p.formula, &p.operands, &p.out)?);
    let operands: Vec<Pointer> = (0..p.operands.len()).map(|i| Pointer::Input(i, 0)).collect();
    let variant = Variant::named("scalar");
    let blocks = elements.div_ceil((variant.threads * variant.number("each")) as usize);
    let launch = Launch::new(variant, [blocks as u32, 1, 1], vec![Arg::U32(elements as u32)]);
    Ok(vec![launch.finished(&finish, Pointer::Output(0, 0), &operands)])
}
