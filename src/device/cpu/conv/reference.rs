//! The plain definition, in f64: integers up to 2^53 are exact in it.

use super::dense::Place;
use super::finish::{Epilogue, Quant, error};
use crate::base::{DType, round};
use crate::device::cpu::Call;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;
use crate::scalar::Steps;

/// Row-major index of every position in `dims`, one after the other.
fn positions(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..dims.iter().product()).map(move |mut i: usize| {
        let mut index = vec![0; dims.len()];
        for (at, &d) in index.iter_mut().zip(dims).rev() {
            *at = i % d;
            i /= d;
        }
        index
    })
}

fn ravel(index: &[usize], dims: &[usize]) -> usize {
    index.iter().zip(dims).fold(0, |sum, (i, d)| sum * d + i)
}

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Conv(p) = call.problem else { return Err(error("the problem is of another family")) };
    let values = |i: usize| -> Result<Vec<f64>> {
        let view = call.inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")))?;
        Ok(view.to_tensor()?.to_f64())
    };
    let quant = Quant::new(p, call)?;
    let (mut x, mut w) = (values(p.x_at)?, values(p.w_at)?);
    if let Some(q) = &quant {
        let each = w.len() / p.m.max(1);
        x.iter_mut().for_each(|v| *v -= f64::from(q.x_zero));
        w.iter_mut().enumerate().for_each(|(i, v)| *v -= f64::from(q.w_zero_of(i / each.max(1))));
    }
    if p.w_as == DType::F16 {
        w.iter_mut().for_each(|v| *v = round::to_f16(*v).to_f64());
    }
    let bias = match p.b_at {
        Some(i) => values(i)?,
        None => vec![0.0; p.m],
    };
    let mut sums = sums(p, &x, &w);
    let pixels = p.window.pixels();
    for (row, i) in sums.chunks_exact_mut(pixels.max(1)).zip(0..) {
        row.iter_mut().for_each(|s| *s += bias[i % p.m]);
    }
    if let Some(q) = &quant {
        sums.iter_mut().enumerate().for_each(|(i, s)| *s = q.value(i / pixels % p.m, *s as i32, p.y).into());
    }
    let of_integers = if quant.is_some() { Epilogue::new(p, call.inputs)? } else { None };
    if of_integers.is_none() {
        epilogue(p, call, &mut sums)?;
    }
    let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
    if let (Some(epilogue), true) = (of_integers, pixels > 0) {
        let rows = sums.chunks_exact(pixels).zip(out.bytes.chunks_exact_mut(pixels * epilogue.size()));
        for (i, (row, out)) in rows.enumerate() {
            let row: Vec<i32> = row.iter().map(|&s| s as i32).collect();
            epilogue.integers(&Place { image: i / p.m, channel: i % p.m, pixel: 0 }, &row, 0, out);
        }
        return Ok(());
    }
    let identity = Steps::compile(&crate::scalar::arg(0), &[DType::F64], out.dtype)?;
    let lane = crate::scalar::cpu::Lane::Slice(bytemuck::cast_slice(&sums));
    crate::scalar::cpu::Program::new(identity).run(&[lane], out.bytes);
    Ok(())
}

fn epilogue(p: &ConvProblem, call: &Call, sums: &mut [f64]) -> Result<()> {
    let Some(spec) = &p.epilogue else { return Ok(()) };
    let shape = p.out_shape();
    let steps = spec.steps()?;
    let mut operands = Vec::new();
    for (i, t) in spec.operands.iter().enumerate() {
        let view = call.inputs.get(p.own_inputs + i).and_then(|v| v.as_ref()).ok_or_else(|| error("an operand is missing"))?;
        let strides = t.shape.broadcast_strides(&shape).ok_or_else(|| error("an operand does not broadcast"))?;
        operands.push((view.to_tensor()?.to_f64(), strides));
    }
    for (index, s) in positions(&shape).zip(sums.iter_mut()) {
        let read = |(v, strides): &(Vec<f64>, _)| {
            v[index.iter().zip::<&smallvec::SmallVec<[usize; 6]>>(strides).map(|(i, s)| i * s).sum::<usize>()]
        };
        let args: Vec<f64> = std::iter::once(*s).chain(operands.iter().map(read)).collect();
        *s = steps.eval(&args);
    }
    Ok(())
}

/// Sums over channels and taps, without bias.
fn sums(p: &ConvProblem, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (pixels, plane, taps) = (p.window.pixels(), p.window.plane(), p.window.taps());
    let (cg, mg) = (p.c / p.groups, p.m / p.groups);
    let mut sums = vec![0.0; p.n * p.m * pixels];
    // Pairs of positions that a tap joins: in a transposed convolution input and output change places.
    let (small, large) = if p.transposed { (&p.window.input, &p.window.output) } else { (&p.window.output, &p.window.input) };
    for at in positions(small) {
        for tap in positions(&p.window.kernel) {
            let on_axis = |i: usize| usize::try_from(p.window.at(i, at[i], tap[i])).ok().filter(|&v| v < large[i]);
            let Some(there) = (0..at.len()).map(on_axis).collect::<Option<Vec<_>>>() else { continue };
            let (here, there, tap) = (ravel(&at, small), ravel(&there, large), ravel(&tap, &p.window.kernel));
            let (from, to) = if p.transposed { (here, there) } else { (there, here) };
            for n in 0..p.n {
                for m in 0..p.m {
                    let g = m / mg;
                    let sum = (0..cg).map(|c| {
                        let weight = if p.transposed { ((g * cg + c) * mg + m % mg) * taps } else { (m * cg + c) * taps };
                        x[(n * p.c + g * cg + c) * plane + from] * w[weight + tap]
                    });
                    sums[(n * p.m + m) * pixels + to] += sum.sum::<f64>();
                }
            }
        }
    }
    sums
}
