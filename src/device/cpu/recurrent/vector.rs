//! Vector LSTM: weights packed into panels, directions shared between threads.

use super::lstm::{Direction, Weights};
use super::panels::{pack, panels_len};
use crate::base::{DType, Tensor, TensorView};
use crate::device::cpu::Call;
use crate::device::cpu::call::Packed;
use crate::device::cpu::isa::Isa;
use crate::device::cpu::widen::{to_f32, to_i128};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::RecurrentProblem;

fn problem(problem: &Problem) -> Result<&RecurrentProblem> {
    match problem {
        Problem::Recurrent(p) => Ok(p),
        _ => Err(Error::BadInput("a recurrent kernel was called with another family's problem".into())),
    }
}

/// Packs constant w and r. Parts: panels of w, panels of r; of quantised ones also the scales of w and of r for each column.
pub(super) fn pack_weights(p: &Problem, inputs: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let p = problem(p)?;
    let aligned: Vec<Option<Tensor>> = inputs.iter().map(|t| t.as_ref().map(Tensor::aligned)).collect();
    let views: Vec<_> = aligned.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
    Ok(panels(p, &views)?.map(|packed| (packed, vec![1, 2])))
}

/// The packed form, when all it needs is among the inputs.
fn panels(p: &RecurrentProblem, inputs: &[Option<TensorView>]) -> Result<Option<Packed>> {
    let view = |i: usize| inputs.get(i).and_then(|v| v.as_ref());
    let (Some(w), Some(r)) = (view(1), view(2)) else { return Ok(None) };
    if p.quantized.is_none() {
        return Ok(Some(Packed { parts: vec![float_panels(p, w, p.input_size), float_panels(p, r, p.hidden_size)] }));
    }
    let (Some(ws), Some(wz), Some(rs), Some(rz)) = (view(8), view(9), view(10), view(11)) else { return Ok(None) };
    let parts = vec![
        integer_panels(p, w, wz, p.input_size),
        integer_panels(p, r, rz, p.hidden_size),
        Tensor::vector(&for_columns(p, &to_f32(ws, 0, ws.numel()))),
        Tensor::vector(&for_columns(p, &to_f32(rs, 0, rs.numel()))),
    ];
    Ok(Some(Packed { parts }))
}

/// All directions' panels of a `[directions, 4 * hidden, k]` matrix.
fn float_panels(p: &RecurrentProblem, w: &TensorView, k: usize) -> Tensor {
    let (w, n) = (w.slice::<f32>(), 4 * p.hidden_size);
    let one = |d: usize| pack(k, n, |row, column| w[(d * n + column) * k + row]);
    Tensor::vector(&(0..p.directions()).flat_map(one).collect::<Vec<f32>>())
}

/// All directions' panels of a `[directions, k, 4 * hidden]` matrix, less the zero points.
fn integer_panels(p: &RecurrentProblem, w: &TensorView, zero: &TensorView, k: usize) -> Tensor {
    let n = 4 * p.hidden_size;
    let values: Vec<i16> = match w.dtype {
        DType::I8 => w.slice::<i8>().iter().map(|&v| v.into()).collect(),
        _ => w.slice::<u8>().iter().map(|&v| v.into()).collect(),
    };
    let zero: Vec<i16> = for_columns(p, &to_i128(zero)).into_iter().map(|v| v as i16).collect();
    let one = |d: usize| pack(k, n, |row, column| values[(d * k + row) * n + column] - zero[d * n + column]);
    Tensor::vector(&(0..p.directions()).flat_map(one).collect::<Vec<i16>>())
}

/// One value for each direction as one for each column.
fn for_columns<T: Copy>(p: &RecurrentProblem, values: &[T]) -> Vec<T> {
    let columns = 4 * p.hidden_size * p.directions();
    (0..columns).map(|i| values[i * values.len() / columns]).collect()
}

/// The weights of direction `d`: panels from part `i`, scales from part `i + 2`.
fn weights<'a>(p: &RecurrentProblem, packed: &'a Packed, i: usize, k: usize, d: usize) -> Result<Weights<'a>> {
    let n = 4 * p.hidden_size;
    let (at, len) = (d * panels_len(k, n), panels_len(k, n));
    let part = &packed.parts[i];
    let wrong = |_| Error::BadInput("packed weights of another kernel".into());
    if p.quantized.is_none() {
        return Ok(Weights::Float(&bytemuck::try_cast_slice(part.bytes()).map_err(wrong)?[at..at + len]));
    }
    let scales: &[f32] = bytemuck::try_cast_slice(packed.parts[i + 2].bytes()).map_err(wrong)?;
    Ok(Weights::Quantized(&bytemuck::try_cast_slice(part.bytes()).map_err(wrong)?[at..at + len], &scales[d * n..(d + 1) * n]))
}

/// Solves the LSTMs that `kernel::recurrent` accepts.
pub(super) fn run(call: &mut Call, isa: Isa) -> Result<()> {
    let p = problem(call.problem)?;
    let own = if call.packed.is_none() { panels(p, call.inputs)? } else { None };
    let packed = call.packed.or(own.as_ref()).ok_or_else(|| Error::BadInput("an LSTM without weights".into()))?;
    let view = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref());
    let floats = |i: usize| view(i).map(|v| v.slice::<f32>());
    let (d, n) = (p.directions(), p.hidden_size);
    let x = floats(0).ok_or_else(|| Error::BadInput("an LSTM without input".into()))?;
    let part = |i: usize, d: usize, len: usize| floats(i).map(|v| &v[d * len..][..len]);
    let direction = |number: usize| -> Result<Direction> {
        let bias = part(3, number, 8 * n).map(|v| v[..4 * n].iter().zip(&v[4 * n..]).map(|(a, b)| a + b).collect());
        Ok(Direction {
            problem: p,
            number,
            x,
            w: weights(p, packed, 0, p.input_size, number)?,
            r: weights(p, packed, 1, n, number)?,
            bias: bias.unwrap_or_else(|| vec![0.0; 4 * n]),
            lengths: view(4).map(|v| v.slice::<i32>()),
            peepholes: part(7, number, 3 * n),
        })
    };
    let directions = (0..d).map(direction).collect::<Result<Vec<_>>>()?;
    let state = |i: usize| match floats(i) {
        Some(v) => states(p, v, true),
        None => vec![0.0; d * p.batch * n],
    };
    let (mut h, mut c) = (state(5), state(6));
    let mut y = vec![0.0; d * p.seq_len * p.batch * n];
    all(isa, &directions, &mut h, &mut c, &mut y);
    store(p, call, &h, &c, &y);
    Ok(())
}

/// Both directions at once when they are worth a thread.
fn all(isa: Isa, directions: &[Direction], h: &mut [f32], c: &mut [f32], y: &mut [f32]) {
    let d = directions.len();
    let ((h0, h1), (c0, c1)) = (h.split_at_mut(h.len() / d), c.split_at_mut(c.len() / d));
    let (y0, y1) = y.split_at_mut(y.len() / d);
    let mut first = || directions[0].run(isa, h0, c0, y0);
    match directions.get(1) {
        None => first(),
        Some(second) if rayon::current_num_threads() > 1 => {
            rayon::join(first, || second.run(isa, h1, c1, y1));
        }
        Some(second) => {
            first();
            second.run(isa, h1, c1, y1);
        }
    }
}

/// `[directions, batch, hidden]` from the layer's own order (`inward`), or to it.
fn states(p: &RecurrentProblem, v: &[f32], inward: bool) -> Vec<f32> {
    let (d, b, n) = (p.directions(), p.batch, p.hidden_size);
    if !p.batch_first {
        return v.to_vec();
    }
    let (outer, inner) = if inward { (d, b) } else { (b, d) };
    let places = (0..outer).flat_map(|o| (0..inner).map(move |i| i * outer + o));
    places.flat_map(|at| v[at * n..][..n].iter().copied()).collect()
}

/// Writes what is wanted; y comes as `[directions, seq_len, batch, hidden]`.
fn store(p: &RecurrentProblem, call: &mut Call, h: &[f32], c: &[f32], y: &[f32]) {
    let (d, n) = (p.directions(), p.hidden_size);
    let mut outputs = call.outputs.iter_mut();
    if let Some(Some(out)) = outputs.next() {
        for (i, to) in out.slice::<f32>().chunks_exact_mut(n.max(1)).enumerate() {
            let (t, b, direction) = match p.batch_first {
                true => (i / d % p.seq_len, i / d / p.seq_len, i % d),
                false => (i / p.batch / d, i % p.batch, i / p.batch % d),
            };
            to.copy_from_slice(&y[((direction * p.seq_len + t) * p.batch + b) * n..][..n]);
        }
    }
    for (out, state) in outputs.zip([h, c]) {
        if let Some(out) = out {
            out.slice::<f32>().copy_from_slice(&states(p, state, false));
        }
    }
}
