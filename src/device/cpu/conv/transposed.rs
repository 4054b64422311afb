//! Transposed convolution: a matrix product gives every tap's contribution of every input pixel, which are then added up.

use rayon::prelude::*;

use super::finish::Epilogue;
use super::tile::Tile;
use super::window::Pixels;
use crate::error::Result;
use crate::graph::problem::ConvProblem;

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
    let group_len = (mg * taps).next_multiple_of(tile.mr) * cg;
    let mut columns = vec![0f32; (mg * taps).next_multiple_of(tile.mr) * plane];
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
            scatter(p, &columns[m * taps * plane..(m + 1) * taps * plane], row);
            if let Some(e) = epilogue {
                let mut copy = vec![0f32; pixels];
                e.row(n, channel, 0, row, &mut copy);
            }
        };
        out.par_chunks_exact_mut(pixels).enumerate().for_each(add);
    }
    Ok(())
}

/// `columns[row][pixel]`, rows in panels of the tile.
fn product(tile: &Tile, k: usize, plane: usize, weights: &[f32], x: &[f32], columns: &mut [f32]) {
    let (mr, nr) = (tile.mr, tile.nr);
    let rows = columns.par_chunks_exact_mut(mr * plane).zip(weights.par_chunks_exact(k * mr));
    let panels = plane.div_ceil(nr);
    let mut packed = vec![0f32; panels * k * nr];
    for (i, panel) in packed.chunks_exact_mut(k * nr).enumerate() {
        let n = nr.min(plane - i * nr);
        for (c, row) in panel.chunks_exact_mut(nr).enumerate() {
            x.copy(c * plane + i * nr, 1, &mut row[..n]);
        }
    }
    rows.for_each(|(rows, a)| {
        let mut sums = [0f32; 12 * 32];
        for (i, b) in packed.chunks_exact(k * nr).enumerate() {
            let n = nr.min(plane - i * nr);
            // SAFETY: `a` has k * mr elements, `b` k * nr, and `sums` mr * nr; the chooser checked the instruction set.
            unsafe { (tile.run)(k, a.as_ptr(), b.as_ptr(), sums.as_mut_ptr()) };
            for (row, s) in rows.chunks_exact_mut(plane).zip(sums.chunks_exact(nr)) {
                row[i * nr..i * nr + n].copy_from_slice(&s[..n]);
            }
        }
    });
}

/// Adds one channel's `columns[tap][input pixel]` to the pixels that they reach.
fn scatter(p: &ConvProblem, columns: &[f32], out: &mut [f32]) {
    let pair = |v: &[usize], fill: usize| if v.len() == 2 { [v[0], v[1]] } else { [fill, v[0]] };
    let pads = if p.pads.len() == 2 { [p.pads[0], p.pads[1]] } else { [0, p.pads[0]] };
    let (input, output, kernel) = (pair(&p.input, 1), pair(&p.output, 1), pair(&p.kernel, 1));
    let (strides, dilations) = (pair(&p.strides, 1), pair(&p.dilations, 1));
    let place = |axis: usize, i: usize, tap: usize| {
        usize::try_from((i * strides[axis] + tap * dilations[axis]) as i64 - pads[axis]).ok().filter(|&o| o < output[axis])
    };
    for (tap, plane) in columns.chunks_exact(input[0] * input[1]).enumerate() {
        let (ky, kx) = (tap / kernel[1], tap % kernel[1]);
        for (iy, row) in plane.chunks_exact(input[1]).enumerate() {
            let Some(oy) = place(0, iy, ky) else { continue };
            let line = &mut out[oy * output[1]..(oy + 1) * output[1]];
            for (ix, v) in row.iter().enumerate() {
                if let Some(ox) = place(1, ix, kx) {
                    line[ox] += v;
                }
            }
        }
    }
}
