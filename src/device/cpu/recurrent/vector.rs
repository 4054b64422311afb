//! Vector kernels of every cell: the input's products for all steps at once, the state's step by step, directions shared between
//! threads. f32, and f16 or bf16 stored but computed as f32.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::activation::Activation;
use super::steps::{Direction, Memory};
use super::weights::Tier;
use crate::base::{DType, Tensor, TensorViewMut};
use crate::device::cpu::call::{Call, CpuCode, Packing};
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::widen::to_f32;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::RecurrentProblem;
use crate::hardware::DeviceInfo;

fn problem(problem: &Problem) -> Result<&RecurrentProblem> {
    match problem {
        Problem::Recurrent(p) => Ok(p),
        _ => Err(Error::BadInput("a recurrent kernel was called with another family's problem".into())),
    }
}

impl CpuCode for Tier {
    /// Packs constant w and r.
    fn pack(&self, p: &Problem, inputs: &[Option<Tensor>]) -> Result<Packing> {
        let aligned: Vec<Option<Tensor>> = inputs.iter().map(|t| t.as_ref().map(Tensor::aligned)).collect();
        let views: Vec<_> = aligned.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
        Ok(self.tiles.pack(problem(p)?, &views)?.map(|packed| (packed, vec![1, 2])))
    }

    /// Both states of all directions, and each direction's memory.
    fn scratch_bytes(&self, p: &Problem, _: &DeviceInfo) -> usize {
        let Ok(p) = problem(p) else { return 0 };
        let states = 2 * p.batch * p.hidden_size;
        4 * p.directions() * (states + Memory::len(p))
    }

    /// Solves the problems that `kernel::recurrent` accepts.
    fn run(&self, call: &mut Call) -> Result<()> {
        let p = problem(call.problem)?;
        let (inputs, d, n) = (call.inputs, p.directions(), p.hidden_size);
        let own = if call.packed.is_none() { self.tiles.pack(p, inputs)? } else { None };
        let packed = call.packed.or(own.as_ref()).ok_or_else(|| Error::BadInput("a recurrent layer without weights".into()))?;
        let view = |i: usize| inputs.get(i).and_then(|v| v.as_ref());
        let floats = |i: usize| view(i).map(|v| to_f32(v, 0, v.numel()));
        let x = floats(0).ok_or_else(|| Error::BadInput("a recurrent layer without input".into()))?;
        let (bias, peepholes) = (floats(3), floats(7));
        let activations = p.activations.iter().map(Activation::new).collect::<Result<Vec<_>>>()?;
        let lengths = view(4).map(|v| v.slice::<i32>());
        let scratch = bytemuck::cast_slice_mut::<u8, f32>(&mut *call.scratch);
        let (h, rest) = scratch.split_at_mut(d * p.batch * n);
        let (c, memory) = rest.split_at_mut(d * p.batch * n);
        for (i, state) in [(5, &mut *h), (6, &mut *c)] {
            begin(p, floats(i), state);
        }
        let (y, states) = call.outputs.split_at_mut(1.min(call.outputs.len()));
        let y = Sequence::new(p, y.first_mut().and_then(|y| y.as_mut()), lengths.is_some());
        let direction = |number: usize| -> Result<Direction> {
            let count = p.cell.activations();
            Ok(Direction {
                problem: p,
                number,
                isa: self.isa,
                x: &x,
                matrices: self.tiles.matrices(p, packed, number)?,
                bias: bias.as_deref().map(|v| &v[v.len() / d * number..][..v.len() / d]),
                activations: &activations[number * count..][..count],
                lengths,
                peepholes: peepholes.as_deref().map(|v| &v[v.len() / d * number..][..v.len() / d]),
                y: &y,
            })
        };
        let directions = (0..d).map(direction).collect::<Result<Vec<_>>>()?;
        all(&directions, h, c, &mut memory[..d * Memory::len(p)]);
        for (out, state) in states.iter_mut().zip([&*h, &*c]) {
            if let Some(out) = out {
                for (i, row) in state.chunks_exact(n.max(1)).enumerate() {
                    store(out.dtype, out.bytes, place(p, i / p.batch, i % p.batch) * n, row);
                }
            }
        }
        Ok(())
    }
}

/// Both directions at once when they are worth a thread.
fn all(directions: &[Direction], h: &mut [f32], c: &mut [f32], memory: &mut [f32]) {
    let d = directions.len();
    let ((h0, h1), (c0, c1)) = (h.split_at_mut(h.len() / d), c.split_at_mut(c.len() / d));
    let (m0, m1) = memory.split_at_mut(memory.len() / d);
    let mut first = || directions[0].run(h0, c0, m0);
    match directions.get(1) {
        None => first(),
        Some(second) if rayon::current_num_threads() > 1 => {
            rayon::join(first, || second.run(h1, c1, m1));
        }
        Some(second) => {
            first();
            second.run(h1, c1, m1);
        }
    }
}

/// Row of a state in the layer's own order.
fn place(p: &RecurrentProblem, direction: usize, b: usize) -> usize {
    if p.batch_first { b * p.directions() + direction } else { direction * p.batch + b }
}

/// Fills `[directions, batch, hidden]` with the initial state, or zeros.
fn begin(p: &RecurrentProblem, initial: Option<Cow<[f32]>>, state: &mut [f32]) {
    let Some(initial) = initial else { return state.fill(0.0) };
    let n = p.hidden_size;
    for (i, row) in state.chunks_exact_mut(n.max(1)).enumerate() {
        row.copy_from_slice(&initial[place(p, i / p.batch, i % p.batch) * n..][..n]);
    }
}

/// Writes a row from element `at` on.
fn store(dtype: DType, bytes: &mut [u8], at: usize, row: &[f32]) {
    let size = dtype.size_bytes();
    let bytes = &mut bytes[at * size..][..row.len() * size];
    match dtype {
        DType::F16 => bytemuck::cast_slice_mut::<u8, f16>(bytes).convert_from_f32_slice(row),
        DType::BF16 => bytemuck::cast_slice_mut::<u8, bf16>(bytes).convert_from_f32_slice(row),
        _ => bytemuck::cast_slice_mut::<u8, f32>(bytes).copy_from_slice(row),
    }
}

/// The output over time, if wanted: `[seq_len, directions, batch, hidden]`, or `[batch, seq_len, directions, hidden]`.
pub(super) struct Sequence<'a> {
    problem: &'a RecurrentProblem,
    out: Option<(DType, Disjoint<'a, u8>)>,
}

impl<'a> Sequence<'a> {
    /// `gaps`: not every row will be written; the others are zeros.
    fn new(problem: &'a RecurrentProblem, out: Option<&'a mut TensorViewMut>, gaps: bool) -> Self {
        let disjoint = |out: &'a mut TensorViewMut| {
            if gaps {
                out.bytes.fill(0);
            }
            (out.dtype, Disjoint::new(&mut *out.bytes))
        };
        Sequence { problem, out: out.map(disjoint) }
    }

    /// Writes h of batch entry `b` at time `t`.
    pub(super) fn write(&self, direction: usize, t: usize, b: usize, h: &[f32]) {
        let Some((dtype, out)) = &self.out else { return };
        let (p, d) = (self.problem, self.problem.directions());
        let row = if p.batch_first { (b * p.seq_len + t) * d + direction } else { (t * d + direction) * p.batch + b };
        let len = h.len() * dtype.size_bytes();
        // SAFETY: each direction writes its own rows, one after another.
        store(*dtype, unsafe { out.part(row * len, len) }, 0, h);
    }
}
