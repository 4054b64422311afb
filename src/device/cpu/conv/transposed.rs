//! Transposed convolution: a matrix product gives every tap's contribution of every input pixel, which are then added up.

use rayon::prelude::*;

use super::finish::Epilogue;
use super::tile::Tile;
use super::window::Pixels;
use crate::error::Result;
use crate::graph::problem::ConvProblem;

/// Pixels of a block, a multiple of every tile's columns.
const BLOCK: usize = 1024;

/// Packed rows are `[group][panel][channel][mr]` over output channel and tap.
pub(super) fn run(
    tile: &Tile,
    p: &ConvProblem,
    weights: &[f32],
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
    let rows = (mg * taps).next_multiple_of(tile.mr);
    let group_len = rows * cg;
    let mut columns = vec![0f32; rows * plane.next_multiple_of(BLOCK)];
    let groups = out.chunks_exact_mut(mg * pixels).enumerate();
    for (i, out) in groups {
        let (n, g) = (i / p.groups, i % p.groups);
        let own = &x[(n * p.c + g * cg) * plane..][..cg * plane];
        let weights = &weights[g * group_len..][..group_len];
        product(tile, cg, plane, weights, own, &mut columns);
        let columns = &columns;
        let add = |(m, row): (usize, &mut [f32])| {
            let channel = g * mg + m;
            row.fill(bias.map_or(0.0, |b| b[channel]));
            scatter(p, columns, rows, m * taps, row);
            if let Some(e) = epilogue {
                let mut copy = vec![0f32; pixels];
                e.row(n, channel, 0, row, &mut copy);
            }
        };
        out.par_chunks_exact_mut(pixels).enumerate().for_each(add);
    }
    Ok(())
}

/// `columns[block][row][pixel]`: blocks of pixels are computed by different threads, each with its own panel of pixels.
fn product(tile: &Tile, k: usize, plane: usize, weights: &[f32], x: &[f32], columns: &mut [f32]) {
    let (mr, nr) = (tile.mr, tile.nr);
    let rows = weights.len() / k;
    columns.par_chunks_exact_mut(rows * BLOCK).enumerate().for_each(|(b, block)| {
        let mut panel = vec![0f32; k * nr];
        let mut sums = [0f32; 12 * 32];
        for at in (0..BLOCK).step_by(nr).take_while(|at| b * BLOCK + at < plane) {
            let first = b * BLOCK + at;
            let n = nr.min(plane - first);
            for (c, row) in panel.chunks_exact_mut(nr).enumerate() {
                x.copy(c * plane + first, 1, &mut row[..n]);
            }
            for (a, out) in weights.chunks_exact(k * mr).zip(block.chunks_exact_mut(mr * BLOCK)) {
                // SAFETY: `a` has k * mr elements, the panel k * nr, and `sums` mr * nr; the chooser checked the instruction set.
                unsafe { (tile.run)(k, a.as_ptr(), panel.as_ptr(), sums.as_mut_ptr()) };
                for (row, s) in out.chunks_exact_mut(BLOCK).zip(sums.chunks_exact(nr)) {
                    row[at..at + n].copy_from_slice(&s[..n]);
                }
            }
        }
    });
}

/// Adds the contributions of one channel, whose rows begin at `first`, to the pixels that they reach.
fn scatter(p: &ConvProblem, columns: &[f32], rows: usize, first: usize, out: &mut [f32]) {
    let pair = |v: &[usize], fill: usize| if v.len() == 2 { [v[0], v[1]] } else { [fill, v[0]] };
    let pads = if p.pads.len() == 2 { [p.pads[0], p.pads[1]] } else { [0, p.pads[0]] };
    let (input, output, kernel) = (pair(&p.input, 1), pair(&p.output, 1), pair(&p.kernel, 1));
    let (strides, dilations) = (pair(&p.strides, 1), pair(&p.dilations, 1));
    let place = |axis: usize, i: usize, tap: usize| {
        usize::try_from((i * strides[axis] + tap * dilations[axis]) as i64 - pads[axis]).ok().filter(|&o| o < output[axis])
    };
    for tap in 0..kernel[0] * kernel[1] {
        let (ky, kx) = (tap / kernel[1], tap % kernel[1]);
        for iy in 0..input[0] {
            let Some(oy) = place(0, iy, ky) else { continue };
            let line = &mut out[oy * output[1]..(oy + 1) * output[1]];
            let mut ix = 0;
            while ix < input[1] {
                let pixel = iy * input[1] + ix;
                let n = (BLOCK - pixel % BLOCK).min(input[1] - ix);
                let from = &columns[(pixel / BLOCK * rows + first + tap) * BLOCK + pixel % BLOCK..][..n];
                for (i, v) in from.iter().enumerate() {
                    if let Some(ox) = place(1, ix + i, kx) {
                        line[ox] += v;
                    }
                }
                ix += n;
            }
        }
    }
}
