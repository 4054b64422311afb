//! The launches of a layer: states, products of the input, steps. States are kept in f32 as `[directions, batch, hidden]`, or with the
//! batch before the directions as the states that are given.

use std::sync::Arc;

use super::quantized;
use crate::base::{DType, Shape};
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::reduce::walk::code;
use crate::device::gpu::scalar::elementwise;
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::recurrent::Cell;
use crate::graph::{Problem, Type};
use crate::hardware::DeviceInfo;
use crate::scalar::{arg, constant};

/// Where the parts of the scratch begin.
pub struct Places {
    /// Two states that take turns, and the cells' memory.
    h: [u64; 2],
    c: u64,
    /// Gates of a GRU between its two launches: the update gate, and the state as the reset gate leaves it.
    update: u64,
    met: u64,
    /// Products of the input, `[directions, tokens, gates * hidden]`.
    pub inputs: u64,
    pub end: u64,
}

/// The weights of the state as the steps read them.
pub struct Weights {
    pub at: Pointer,
    /// Of 8-bit weights: records of the columns, and words from row to row.
    pub columns: Option<(Pointer, usize)>,
}

fn places(p: &RecurrentProblem) -> Places {
    let state = ((state(p) * 4).next_multiple_of(256)) as u64;
    let inputs = 5 * state;
    let products = p.directions() * p.seq_len * p.batch * p.cell.gates() * p.hidden_size * 4;
    let end = inputs + products.next_multiple_of(256) as u64;
    Places { h: [0, state], c: 2 * state, update: 3 * state, met: 4 * state, inputs, end }
}

/// Elements of a state.
fn state(p: &RecurrentProblem) -> usize {
    p.directions() * p.batch * p.hidden_size
}

pub fn scratch_bytes(problem: &Problem, _: &DeviceInfo) -> usize {
    let Problem::Recurrent(p) = problem else { return 0 };
    let at = places(p);
    match p.quantized {
        Some(_) => quantized::scratch_bytes(p, &at).unwrap_or(0),
        None => at.end as usize,
    }
}

pub fn launches(call: &Call) -> Result<Vec<Launch>> {
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
    let (ready, weights) = match p.quantized {
        Some(_) => quantized::prepare(call, p, &at)?,
        None => (inputs(p, &at).into_iter().collect(), Weights { at: Pointer::Input(2, 0), columns: None }),
    };
    all.extend(ready);
    if state(p) > 0 {
        for step in 0..p.seq_len {
            all.extend(one_step(call, p, &at, &weights, step)?);
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
fn variants(p: &RecurrentProblem) -> &'static [&'static str] {
    match p.cell {
        Cell::Lstm { .. } if p.quantized.is_some() => &["recurrent_lstm_int8"],
        Cell::Lstm { .. } => &["recurrent_lstm"],
        Cell::Gru { linear_before_reset: true } => &["recurrent_gru_linear"],
        Cell::Gru { linear_before_reset: false } => &["recurrent_gru_gates", "recurrent_gru_hidden"],
        Cell::Rnn => &["recurrent_rnn"],
    }
}

/// The launches of a step: all directions together where they have the same activations.
fn one_step(call: &Call, p: &RecurrentProblem, at: &Places, weights: &Weights, step: usize) -> Result<Vec<Launch>> {
    let each = p.cell.activations();
    let formulas: Vec<_> = p.activations.chunks(each).collect();
    let together = formulas.iter().all(|f| *f == formulas[0]);
    let parts: Vec<(usize, usize)> =
        if together { vec![(0, p.directions())] } else { (0..p.directions()).map(|d| (d, 1)).collect() };
    let mut all = Vec::new();
    for (first, count) in parts {
        let finish = Arc::new(Finish::functions(formulas[first])?);
        for name in variants(p) {
            let variant = Variant::named(name);
            let units = variant.threads as usize / 32;
            let grid = [p.hidden_size.div_ceil(units), p.batch.div_ceil(4), count].map(|n| n as u32);
            let launch = Launch::new(variant, grid, arguments(call, p, at, weights, step, first));
            all.push(launch.finished(&finish, Pointer::Null, &[]));
        }
    }
    Ok(all)
}

fn arguments(call: &Call, p: &RecurrentProblem, at: &Places, weights: &Weights, step: usize, first: usize) -> Vec<Arg> {
    let given = |i: usize| call.inputs.get(i).and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Input(i, 0));
    let y = call.outputs.first().and_then(Option::as_ref).map_or(Pointer::Null, |_| Pointer::Output(0, 0));
    let (d, b, n) = (p.directions(), p.batch, p.hidden_size);
    let scratch = [at.h[step % 2], at.h[(step + 1) % 2], at.c, at.inputs].map(Pointer::Scratch);
    let mut args = vec![Arg::Pointer(weights.at)];
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
    if let Some((columns, words)) = weights.columns {
        args.extend([Arg::Pointer(columns), Arg::U32(words as u32)]);
    }
    args
}
