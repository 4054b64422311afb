//! LSTM, GRU, RNN.

use super::scalar;
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::recurrent::Cell;
use crate::graph::problem::{Problem, RecurrentProblem};
use crate::graph::{Attr, Lower, OpDef, Refusal, Site, Type};
use crate::scalar::{Formula, arg};

const fn row(domain: &'static str, name: &'static str) -> OpDef {
    OpDef { domain, name, infer, lower: Lower::Family(lower) }
}

pub(super) static OPS: &[OpDef] = &[row("", "LSTM"), row("", "GRU"), row("", "RNN"), row("com.microsoft", "DynamicQuantizeLSTM")];

fn cell(site: &Site) -> Cell {
    match site.node.op.as_str() {
        "GRU" => Cell::Gru { linear_before_reset: site.int("linear_before_reset", 0) != 0 },
        "RNN" => Cell::Rnn,
        _ => Cell::Lstm { input_forget: site.int("input_forget", 0) != 0 },
    }
}

fn reverse(site: &Site) -> Result<Vec<bool>> {
    match site.str("direction", "forward") {
        "forward" => Ok(vec![false]),
        "reverse" => Ok(vec![true]),
        "bidirectional" => Ok(vec![false, true]),
        other => Err(site.error(format!("direction {other:?} is not defined"))),
    }
}

/// The activation called `name`. `alpha` and `beta` give the next element of the attribute's list, or this default.
fn activation(site: &Site, name: &str, mut alpha: impl FnMut(f32) -> f64, mut beta: impl FnMut(f32) -> f64) -> Result<Formula> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "sigmoid" => arg(0).sigmoid(),
        "tanh" => arg(0).tanh(),
        "relu" => scalar::relu(),
        "softsign" => scalar::softsign(),
        "softplus" => scalar::softplus(),
        "affine" => arg(0) * alpha(1.0) + beta(0.0),
        "leakyrelu" => scalar::leaky_relu(alpha(0.01)),
        "thresholdedrelu" => scalar::thresholded_relu(alpha(1.0)),
        "scaledtanh" => (arg(0) * beta(1.0)).tanh() * alpha(1.0),
        "hardsigmoid" => scalar::hard_sigmoid(alpha(0.2), beta(0.5)),
        "elu" => scalar::elu(alpha(1.0)),
        _ => return Err(site.error(format!("activation {name:?} is not defined"))),
    })
}

fn activations(site: &Site, cell: Cell, directions: usize) -> Result<Vec<Formula>> {
    let count = cell.activations();
    let defaults: &[&str] = match cell {
        Cell::Rnn => &["Tanh"],
        _ => &["Sigmoid", "Tanh", "Tanh"],
    };
    let names: Vec<&str> = match site.attr("activations") {
        Some(Attr::Strs(names)) if !names.is_empty() => names.iter().map(String::as_str).collect(),
        _ => (0..directions).flat_map(|_| defaults[..count].iter().copied()).collect(),
    };
    if names.len() != count * directions {
        return Err(site.error(format!("{} activations for {directions} directions of {count}", names.len())));
    }
    let mut alphas = site.floats("activation_alpha").unwrap_or(&[]).iter();
    let mut betas = site.floats("activation_beta").unwrap_or(&[]).iter();
    let mut next = |name: &&str| {
        let alpha = |default| alphas.next().copied().unwrap_or(default).into();
        activation(site, name, alpha, |default| betas.next().copied().unwrap_or(default).into())
    };
    names.iter().map(&mut next).collect()
}

fn problem(site: &Site) -> Result<RecurrentProblem> {
    let (x, r) = (site.ty(0)?, site.ty(2)?);
    let (cell, reverse) = (cell(site), reverse(site)?);
    let quantized = (site.node.op == "DynamicQuantizeLSTM").then_some(r.dtype);
    let batch_first = site.int("layout", 0) != 0;
    let [first, second, input_size] = x.shape[..] else { return Err(site.error("x must have 3 axes")) };
    let (seq_len, batch) = if batch_first { (second, first) } else { (first, second) };
    let &[_, _, width] = &r.shape[..] else { return Err(site.error("r must have 3 axes")) };
    let hidden_size = if quantized.is_some() { r.shape[1] } else { width };
    if !x.dtype.is_float() {
        return Err(site.error(format!("x is {}, not a float", x.dtype)));
    }
    let activations = activations(site, cell, reverse.len())?;
    let clip = site.attr("clip").map(|_| site.float("clip", 0.0));
    let p = RecurrentProblem {
        cell,
        dtype: x.dtype,
        seq_len,
        batch,
        input_size,
        hidden_size,
        reverse,
        activations,
        clip,
        batch_first,
        quantized,
    };
    check(site, &p)?;
    Ok(p)
}

/// Every operand's shape and type.
fn check(site: &Site, p: &RecurrentProblem) -> Result<()> {
    let (d, h, gates) = (p.directions(), p.hidden_size, p.cell.gates());
    let weight = |k: usize| match p.quantized {
        Some(_) => vec![d, k, gates * h],
        None => vec![d, gates * h, k],
    };
    let state = if p.batch_first { vec![p.batch, d, h] } else { vec![d, p.batch, h] };
    let peepholes = vec![d, 3 * h];
    let want = [None, Some(weight(p.input_size)), Some(weight(h)), Some(vec![d, 2 * gates * h]), Some(vec![p.batch])];
    let want = want.into_iter().chain([Some(state.clone()), Some(state), Some(peepholes)]);
    for (i, shape) in want.enumerate() {
        let (Some(shape), Some(operand)) = (shape, site.input(i)) else { continue };
        let dtype = match i {
            1 | 2 => p.quantized.unwrap_or(p.dtype),
            4 => DType::I32,
            _ => p.dtype,
        };
        if operand.ty.shape[..] != shape[..] || operand.ty.dtype != dtype {
            let ty = &operand.ty;
            return Err(site.error(format!("input {i} is {} {}, not {dtype} {shape:?}", ty.dtype, ty.shape)));
        }
    }
    if let Some(q) = p.quantized {
        quantization(site, p, q)?;
    }
    Ok(())
}

/// Scales and zero points of quantised weights.
fn quantization(site: &Site, p: &RecurrentProblem, q: DType) -> Result<()> {
    let columns = p.directions() * p.cell.gates() * p.hidden_size;
    for (i, dtype) in [(8, DType::F32), (9, q), (10, DType::F32), (11, q)] {
        let ty = site.ty(i)?;
        let n = ty.shape.numel();
        if ty.dtype != dtype || !(n == p.directions() || n == columns) || !matches!(q, DType::I8 | DType::U8) {
            return Err(site.error(format!("input {i} is {} {}, which does not fit weights of {q}", ty.dtype, ty.shape)));
        }
    }
    Ok(())
}

fn infer(site: &Site) -> Result<Vec<Type>, Refusal> {
    let p = problem(site)?;
    let (t, d, b, h) = (p.seq_len, p.directions(), p.batch, p.hidden_size);
    let (y, state) = match p.batch_first {
        true => (Shape::from([b, t, d, h]), Shape::from([b, d, h])),
        false => (Shape::from([t, d, b, h]), Shape::from([d, b, h])),
    };
    let shapes = [y, state.clone(), state];
    Ok(shapes.into_iter().map(|s| Type::new(p.dtype, s)).take(site.output_count()).collect())
}

fn lower(site: &Site, _: &[Type]) -> Result<Problem> {
    Ok(Problem::Recurrent(problem(site)?))
}
