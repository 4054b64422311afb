//! The float kernels: f32, f16 and bf16 operands, B also of i8 with scales, f32 arithmetic.

use half::{bf16, f16};

use super::core::{self, Isa, Rows, Weights, packed_len};
use super::finish::{Finish, input, problem};
use super::stack;
use super::stored::widen;
use crate::base::{DType, Tensor, TensorView};
use crate::device::cpu::call::{Call, CpuCode, Packed, Packing};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::DeviceInfo;

/// How many different matrices B holds.
pub(super) fn matrices(p: &GemmProblem) -> usize {
    if let Some(stack) = &p.pick {
        return stack.count;
    }
    p.batch.iter().zip(&p.b.batch).map(|(&dim, &step)| if step == 0 { 1 } else { dim }).product()
}

/// Which of B's matrices batch `i` uses, numbered in memory order.
pub(super) fn matrix_of(p: &GemmProblem, i: usize) -> usize {
    p.offset(&p.b.batch, i) / (p.k * p.n).max(1)
}

fn packed_bytes(isa: &Isa, p: &GemmProblem) -> usize {
    (packed_len(isa, p.k, p.n) * p.b_as.size_bytes()).next_multiple_of(64)
}

/// Packs one matrix of B.
fn pack_one(isa: &Isa, p: &GemmProblem, b: &TensorView, at: usize, out: &mut [u8]) {
    let (steps, size) = ((p.b.row, p.b.col), (p.k, p.n));
    let out = &mut out[..packed_len(isa, p.k, p.n) * p.b_as.size_bytes()];
    match (p.b.dtype, p.b_as) {
        (DType::F32, DType::F16) => core::pack_b(isa, &b.slice::<f32>()[at..], steps, size, cast::<f16>(out), f16::from_f32),
        (DType::F32, DType::BF16) => core::pack_b(isa, &b.slice::<f32>()[at..], steps, size, cast::<bf16>(out), bf16::from_f32),
        (DType::F32, _) => core::pack_b(isa, &b.slice::<f32>()[at..], steps, size, cast::<f32>(out), |x: f32| x),
        (DType::I8, _) => core::pack_b(isa, &b.bytes[at..], steps, size, out, |x: u8| x),
        _ => core::pack_b(isa, &bytemuck::cast_slice::<u8, u16>(b.bytes)[at..], steps, size, cast::<u16>(out), |x: u16| x),
    }
}

fn cast<T: bytemuck::Pod>(bytes: &mut [u8]) -> &mut [T] {
    bytemuck::cast_slice_mut(bytes)
}

fn pack_all(isa: &Isa, p: &GemmProblem, b: &TensorView, out: &mut [u8]) {
    let bytes = packed_bytes(isa, p);
    for i in 0..if bytes == 0 { 0 } else { matrices(p) } {
        pack_one(isa, p, b, i * p.k * p.n, &mut out[i * bytes..(i + 1) * bytes]);
    }
}

/// A scale for each column of all panels, of a B of i8.
fn column_scales(isa: &Isa, p: &GemmProblem, scales: &TensorView) -> Vec<f32> {
    let (step, scales) = (p.b_scale.as_ref().map_or(0, |s| s.step), scales.slice::<f32>());
    (0..p.n.next_multiple_of(isa.columns)).map(|j| if j < p.n { scales[j * step] } else { 0.0 }).collect()
}

/// Few rows read a row-major B where it lies: packing would cost as much as the product.
fn in_place(p: &GemmProblem) -> bool {
    p.b.col == 1 && p.b.dtype == DType::F32 && p.b_as == DType::F32 && p.m <= 8
}

/// The kernel on one instruction set.
pub(super) struct On(pub &'static Isa);

impl CpuCode for On {
    fn pack(&self, problem_: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
        let p = problem(problem_)?;
        let Some(b) = constants.get(p.b.input).and_then(|b| b.as_ref()) else { return Ok(None) };
        let scale = p.b_scale.as_ref().map(|s| s.input);
        let scales = scale.map(|i| constants.get(i).and_then(|s| s.as_ref()).map(Tensor::aligned));
        if scales == Some(None) {
            return Ok(None);
        }
        let b = b.aligned();
        let mut out = Tensor::zeros(DType::U8, [matrices(p) * packed_bytes(self.0, p)])?;
        pack_all(self.0, p, &b.view(), out.view_mut().bytes);
        let scales = scales.flatten().map(|s| Tensor::vector(&column_scales(self.0, p, &s.view())));
        let dropped = [p.b.input].into_iter().chain(scale).collect();
        Ok(Some((Packed { parts: [out].into_iter().chain(scales).collect() }, dropped)))
    }

    fn scratch_bytes(&self, problem_: &Problem, _: &DeviceInfo) -> usize {
        // The planner does not say whether B is constant; unneeded scratch shares the arena and costs nothing.
        problem(problem_)
            .map_or(0, |p| if in_place(p) { p.k * self.0.columns * 4 } else { matrices(p) * packed_bytes(self.0, p) })
    }

    fn run(&self, call: &mut Call) -> Result<()> {
        let isa = self.0;
        let p = problem(call.problem)?;
        let (inputs, packed, ahead) = (call.inputs, call.packed, call.ahead);
        let scratch = std::mem::take(&mut call.scratch);
        let finish = Finish::new(call)?;
        let a = input(inputs, p.a.input)?;
        if p.m == 0 || p.n == 0 {
            return Ok(());
        }
        let matrices = stack::matrices_of(p, inputs)?;
        let one = |batch: usize, weights: &Weights| product(isa, p, a, batch, weights, &finish);
        if packed.is_none() && in_place(p) {
            let b = input(inputs, p.b.input)?.slice::<f32>();
            for (batch, matrix) in matrices.iter().enumerate() {
                let Some(at) = matrix.map(|m| m * p.k * p.n) else {
                    stack::zero(p, batch, &finish);
                    continue;
                };
                let tail = cast::<f32>(&mut scratch[..p.k * isa.columns * 4]);
                one(batch, &Weights::in_place(isa, (p.k, p.n), &b[at..], p.b.row, tail));
            }
            finish.end();
            return Ok(());
        }
        let panels: &[u8] = match packed.and_then(|p| p.parts.first()) {
            Some(part) => part.bytes(),
            None => {
                pack_all(isa, p, input(inputs, p.b.input)?, scratch);
                scratch
            }
        };
        let made;
        let scales: Option<&[f32]> = match (&p.b_scale, packed.and_then(|p| p.parts.get(1))) {
            (None, _) => None,
            (Some(_), Some(part)) => Some(bytemuck::cast_slice(part.bytes())),
            (Some(s), None) => {
                made = column_scales(isa, p, input(inputs, s.input)?);
                Some(&made)
            }
        };
        let bytes = packed_bytes(isa, p);
        let each = |batch: usize| {
            let Some(m) = matrices[batch] else { return stack::zero(p, batch, &finish) };
            let panels = &panels[m * bytes..(m + 1) * bytes];
            let weights = match scales {
                Some(scales) => Weights::scaled(isa, p.k, p.n, scales, panels),
                None => Weights::packed(isa, p.k, p.n, p.b_as, panels),
            };
            one(batch, &weights.before(ahead));
        };
        over_batch(p, each);
        finish.end();
        Ok(())
    }
}

/// Runs each batch, side by side when they are many and the work is worth it.
pub(super) fn over_batch(p: &GemmProblem, each: impl Fn(usize) + Sync) {
    use rayon::prelude::*;
    let batches = p.batch.numel();
    if batches > 1 && rayon::current_num_threads() > 1 && p.flops() > super::blocks::PARALLEL_FLOPS {
        (0..batches).into_par_iter().for_each(&each);
    } else {
        (0..batches).for_each(each);
    }
}

fn product(isa: &Isa, p: &GemmProblem, a: &TensorView, batch: usize, weights: &Weights, finish: &Finish) {
    let at = p.offset(&p.a.batch, batch);
    let done = |row: usize, col: usize, x: &mut [f32]| finish.row(batch, row, col, x);
    if a.dtype == DType::F32 {
        let a = &a.slice::<f32>()[at.min(a.numel())..];
        return core::product(isa, p.m, Rows::Strided { a, row: p.a.row, col: p.a.col }, weights, &done);
    }
    let bits = &bytemuck::cast_slice::<u8, u16>(a.bytes)[at.min(a.numel())..];
    let half = a.dtype == DType::F16;
    let fill = |row: usize, out: &mut [f32]| {
        if p.a.col == 1 {
            return widen(a.dtype, &bits[row * p.a.row..][..p.k], out);
        }
        for (k, to) in out.iter_mut().enumerate() {
            let bits = bits[row * p.a.row + k * p.a.col];
            *to = if half { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
        }
    };
    core::product(isa, p.m, Rows::Each(&fill), weights, &done);
}
