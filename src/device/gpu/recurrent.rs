//! LSTM, GRU and the plain recurrent layer: docs/cuda-rows.md. States are kept in f32 as `[directions, batch, hidden]`, or with the
//! batch before the directions as the states that are given.

use std::sync::Arc;

use super::call::{Call, GpuKernel};
use super::device::failed;
use super::finish::Finish;
use super::launch::{Arg, Launch, Pointer};
use super::reduce::walk::code;
use super::scalar::elementwise;
use super::variant::Variant;
use crate::base::{DType, Shape};
use crate::device::cpu::call::pack_nothing;
use crate::error::Result;
use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::recurrent::Cell;
use crate::graph::{Problem, Type};
use crate::hardware::DeviceInfo;
use crate::scalar::{arg, constant};

pub(super) static KERNELS: &[GpuKernel] = &[GpuKernel { name: "sm61-recurrent", pack: pack_nothing, scratch_bytes, launches }];

/// Where the parts of the scratch begin.
struct Places {
    /// Two states that take turns, and the cells' memory.
    h: [u64; 2],
    c: u64,
    /// Gates of a GRU between its two launches: the update gate, and the state as the reset gate leaves it.
    update: u64,
    met: u64,
    /// Products of the input, `[directions, tokens, gates * hidden]`.
    inputs: u64,
    end: u64,
}

fn places(p: &RecurrentProblem) -> Places {
    let state = ((state(p) * 4).next_multiple_of(256)) as u64;
    let inputs = 5 * state;
    let products = p.directions() * p.seq_len * p.batch * p.cell.gates() * p.hidden_size * 4;
    Places { h: [0, state], c: 2 * state, update: 3 * state, met: 4 * state, inputs, end: inputs + products as u64 }
}

/// Elements of a state.
fn state(p: &RecurrentProblem) -> usize {
    p.directions() * p.batch * p.hidden_size
}

fn scratch_bytes(problem: &Problem, _: &DeviceInfo) -> usize {
    let Problem::Recurrent(p) = problem else { return 0 };
    places(p).end as usize
}

fn launches(call: &Call) -> Result<Vec<Launch>> {
    let Problem::Recurrent(p) = call.problem else { return Err(failed("not a recurrent layer")) };
    let at = places(p);
    let flat = |dtype| Type::new(dtype, Shape::from([state(p)]));
    let mut all = Vec::new();
    for (i, to) in [(5, at.h[0]), (6, at.c)] {
        let given = call.inputs.get(i).and_then(Option::as_ref);
        let types: Vec<Type> = given.map(|t| flat(t.dtype)).into_iter().collect();
        let formula = if given.is_some() { arg(0) } else { constant(0.0) };
        all.extend(elementwise(
            &formula,
            &types,
            &[Pointer::Input(i, 0)][..types.len()],
            &flat(DType::F32),
            Pointer::Scratch(to),
        )?);
    }
    all.extend(inputs(p, &at));
    if state(p) > 0 {
        for step in 0..p.seq_len {
            all.extend(one_step(call, p, &at, step)?);
        }
    }
    for (i, from) in [(1, at.h[p.seq_len % 2]), (2, at.c)] {
        let Some(wanted) = call.outputs.get(i).and_then(Option::as_ref) else { continue };
        all.extend(elementwise(
            &arg(0),
            &[flat(DType::F32)],
            &[Pointer::Scratch(from)],
            &flat(wanted.dtype),
            Pointer::Output(i, 0),
        )?);
    }
    Ok(all)
}

/// Products of all tokens with the weights of the input.
fn inputs(p: &RecurrentProblem, at: &Places) -> Option<Launch> {
    let (rows, columns) = (p.seq_len * p.batch, p.cell.gates() * p.hidden_size);
    let mut args = [Pointer::Input(0, 0), Pointer::Input(1, 0), Pointer::Scratch(at.inputs)].map(Arg::Pointer).to_vec();
    args.push(Arg::U32(code(p.dtype)));
    args.extend([rows, columns, p.input_size].map(|n| Arg::U32(n as u32)));
    let grid = [columns.div_ceil(64), rows.div_ceil(64), p.directions()].map(|n| n as u32);
    (rows * columns > 0).then(|| Launch::new(Variant::named("recurrent_input"), grid, args))
}

/// The variants that a step of the cell takes, one after the other.
fn variants(cell: Cell) -> &'static [&'static str] {
    match cell {
        Cell::Lstm { .. } => &["recurrent_lstm"],
        Cell::Gru { linear_before_reset: true } => &["recurrent_gru_linear"],
        Cell::Gru { linear_before_reset: false } => &["recurrent_gru_gates", "recurrent_gru_hidden"],
        Cell::Rnn => &["recurrent_rnn"],
    }
}

/// The launches of a step: all directions together where they have the same activations.
fn one_step(call: &Call, p: &RecurrentProblem, at: &Places, step: usize) -> Result<Vec<Launch>> {
    let each = p.cell.activations();
    let formulas: Vec<_> = p.activations.chunks(each).collect();
    let together = formulas.iter().all(|f| *f == formulas[0]);
    let parts: Vec<(usize, usize)> =
        if together { vec![(0, p.directions())] } else { (0..p.directions()).map(|d| (d, 1)).collect() };
    let mut all = Vec::new();
    for (first, count) in parts {
        let finish = Arc::new(Finish::functions(formulas[first])?);
        for name in variants(p.cell) {
            let variant = Variant::named(name);
            let units = variant.threads as usize / 32;
            let grid = [p.hidden_size.div_ceil(units), p.batch.div_ceil(4), count].map(|n| n as u32);
            let launch = Launch::new(variant, grid, arguments(call, p, at, step, first));
            all.push(launch.finished(&finish, Pointer::Null, &[]));
        }
    }
    Ok(all)
}

fn arguments(call: &Call, p: &RecurrentProblem, at: &Places, step: usize, first: usize) -> Vec<Arg> {
    let given = |i: usize| call.inputs.get(i).and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Input(i, 0));
    let y = call.outputs.first().and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Output(0, 0));
    let (d, b, n) = (p.directions(), p.batch, p.hidden_size);
    let scratch = [at.h[step % 2], at.h[(step + 1) % 2], at.c, at.inputs].map(Pointer::Scratch);
    let mut args = vec![Arg::Pointer(Pointer::Input(2, 0))];
    args.extend(scratch.into_iter().chain([given(3), given(7), given(4), y]).map(Arg::Pointer));
    args.extend([at.update, at.met].map(|s| Arg::Pointer(Pointer::Scratch(s))));
    let backwards = p.reverse.iter().enumerate().map(|(i, r)| u32::from(*r) << i).sum();
    let coupled = u32::from(p.cell == Cell::Lstm { input_forget: true });
    args.extend([n, b, p.seq_len, step, first].map(|n| Arg::U32(n as u32)));
    args.insert(args.len() - 5, Arg::U32(code(p.dtype)));
    args.extend([Arg::U32(backwards), Arg::U32(coupled), Arg::F32(p.clip.map_or(f32::INFINITY, f32::abs))]);
    let width = p.cell.gates() * n;
    // Steps of direction and batch; of direction, time and batch; of time, direction and batch.
    let (state, input, output) = match p.batch_first {
        true => ([n, d * n], [p.seq_len * b * width, width, p.seq_len * width], [d * n, n, p.seq_len * d * n]),
        false => ([b * n, n], [p.seq_len * b * width, b * width, width], [d * b * n, b * n, n]),
    };
    args.extend([&state[..], &input, &output].map(|s| Arg::Block(s.iter().map(|&n| Arg::U32(n as u32)).collect())));
    args
}
