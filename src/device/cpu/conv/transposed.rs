//! Transposed convolution: a matrix product gives every tap's contribution of every input pixel, which are then added up.

use rayon::prelude::*;

use super::finish::Epilogue;
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::gemm::core::{self, Isa, Rows, Weights};
use crate::error::Result;
use crate::graph::problem::ConvProblem;

/// `w` is `[c][m / groups][taps]`, `x` and `out` are images by channels.
pub(super) fn run(
    isa: &Isa,
    p: &ConvProblem,
    w: &[f32],
    x: &[f32],
    bias: Option<&[f32]>,
    epilogue: Option<&Epilogue>,
    out: &mut [f32],
) -> Result<()> {
    let taps: usize = p.kernel.iter().product();
    let (mg, cg) = (p.m / p.groups, p.c / p.groups);
    let (plane, pixels): (usize, usize) = (p.input.iter().product(), p.output.iter().product());
    if pixels == 0 || cg == 0 {
        return Ok(());
    }
    let rows = mg * taps;
    // Contributions by row (output channel and tap) and input pixel.
    let mut columns = vec![0f32; rows * plane];
    let mut tail = vec![0f32; cg * isa.columns];
    for (i, out) in out.chunks_exact_mut(mg * pixels).enumerate() {
        let (n, g) = (i / p.groups, i % p.groups);
        let own = &x[(n * p.c + g * cg) * plane..][..cg * plane];
        let weights = Rows::Strided { a: &w[g * cg * rows..], row: 1, col: rows };
        let to = Disjoint::new(&mut columns);
        let store = |row: usize, pixel: usize, sums: &mut [f32]| {
            // SAFETY: the product finishes each segment once.
            unsafe { to.part(row * plane + pixel, sums.len()) }.copy_from_slice(sums);
        };
        core::product(isa, rows, weights, &Weights::in_place(isa, (cg, plane), own, plane, &mut tail), &store);
        let columns = &columns;
        let add = |(m, row): (usize, &mut [f32])| {
            let channel = g * mg + m;
            row.fill(bias.map_or(0.0, |b| b[channel]));
            for tap in 0..taps {
                scatter(p, tap, &columns[(m * taps + tap) * plane..][..plane], row);
            }
            if let Some(e) = epilogue {
                e.row(n, channel, 0, &mut row.to_vec(), row);
            }
        };
        out.par_chunks_exact_mut(pixels).enumerate().for_each(add);
    }
    Ok(())
}

/// Adds one tap's contributions of one channel to the pixels that they reach.
fn scatter(p: &ConvProblem, tap: usize, columns: &[f32], out: &mut [f32]) {
    let pair = |v: &[usize], fill: usize| if v.len() == 2 { [v[0], v[1]] } else { [fill, v[0]] };
    let pads = if p.pads.len() == 2 { [p.pads[0], p.pads[1]] } else { [0, p.pads[0]] };
    let (input, output, kernel) = (pair(&p.input, 1), pair(&p.output, 1), pair(&p.kernel, 1));
    let (strides, dilations) = (pair(&p.strides, 1), pair(&p.dilations, 1));
    let shift = |axis: usize, tap: usize| (tap * dilations[axis]) as i64 - pads[axis];
    let (down, right) = (shift(0, tap / kernel[1]), shift(1, tap % kernel[1]));
    // Input columns whose pixel lies in the output.
    let step = strides[1] as i64;
    let first = if right < 0 { (-right + step - 1) / step } else { 0 };
    let last = ((output[1] as i64 - right + step - 1) / step).clamp(first, input[1].max(first as usize) as i64);
    for iy in 0..input[0] {
        let Some(oy) = usize::try_from((iy * strides[0]) as i64 + down).ok().filter(|&oy| oy < output[0]) else { continue };
        let from = &columns[iy * input[1]..(iy + 1) * input[1]];
        let Some(from) = from.get(first as usize..last as usize).filter(|f| !f.is_empty()) else { continue };
        let line = &mut out[oy * output[1]..(oy + 1) * output[1]][(first * step + right) as usize..];
        line.iter_mut().step_by(strides[1]).zip(from).for_each(|(o, v)| *o += v);
    }
}
