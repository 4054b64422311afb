//! Transposed convolution: for a few output channels at a time, a matrix product gives every tap's contribution of a block of
//! input pixels, which are then added to the pixels that they reach.

use std::cell::RefCell;

use rayon::prelude::*;

use super::operands::Operands;
use super::window::Window2d;
use crate::device::cpu::gemm::blocks::{heights, wide};
use crate::device::cpu::gemm::core::Isa;
use crate::device::cpu::gemm::tile::List;
use crate::graph::problem::ConvProblem;

/// Input pixels of a block, a multiple of every tile's columns.
const BLOCK: usize = 512;

/// Output channels computed together: as many as fill a row panel with their taps.
fn together(isa: &Isa, p: &ConvProblem) -> usize {
    (isa.listed.rows() / p.window.taps().max(1)).max(1)
}

/// The row panels of `channels` output channels: first row (channel and tap), and how many.
fn row_panels(isa: &Isa, p: &ConvProblem, channels: usize) -> impl Iterator<Item = (usize, usize)> {
    heights(channels * p.window.taps(), isa.listed.rows())
}

/// Weights `[c][m / groups][taps]` as `[group][channels together][panel][c][row]`.
pub(super) fn panels(isa: &Isa, p: &ConvProblem, w: &[f32]) -> Vec<f32> {
    let (mg, cg, taps) = (p.m / p.groups, p.c / p.groups, p.window.taps());
    let mut packed = Vec::with_capacity(w.len());
    for g in 0..p.groups {
        for start in (0..mg).step_by(together(isa, p)) {
            for (first, height) in row_panels(isa, p, together(isa, p).min(mg - start)) {
                let row = start * taps + first;
                (g * cg..(g + 1) * cg).for_each(|c| packed.extend(&w[c * mg * taps + row..][..height]));
            }
        }
    }
    packed
}

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `out` is images by channels.
pub(super) fn run(o: &Operands, out: &mut [f32]) {
    let (isa, p) = (o.isa, o.p);
    let (mg, cg, taps) = (p.m / p.groups, p.c / p.groups, p.window.taps());
    let (plane, pixels) = (p.window.plane(), p.window.pixels());
    if pixels == 0 || mg == 0 {
        return;
    }
    let few = together(isa, p);
    let task = |image: usize, start: usize, out: &mut [f32]| {
        let group = start / mg;
        for (m, row) in (start..).zip(out.chunks_exact_mut(pixels)) {
            row.fill(o.bias_of(m));
        }
        let x = &o.x[(image * p.c + group * cg) * plane..][..cg * plane];
        contributions(isa, p, &o.weights[start * taps * cg..], x, out);
        let Some(e) = &o.epilogue else { return };
        BUFFER.with_borrow_mut(|sums| {
            for (m, row) in (start..).zip(out.chunks_exact_mut(pixels)) {
                sums.clear();
                sums.extend_from_slice(row);
                e.row(image, m, 0, sums, row);
            }
        });
    };
    let groups = out.par_chunks_exact_mut(mg * pixels).enumerate();
    groups.for_each(|(i, out)| {
        let (image, group) = (i / p.groups, i % p.groups);
        out.par_chunks_mut(few * pixels).enumerate().for_each(|(j, out)| task(image, group * mg + j * few, out));
    });
}

/// Adds all contributions of one group's channels `x` to the output channels `out`, whose panels `weights` begin with.
fn contributions(isa: &Isa, p: &ConvProblem, weights: &[f32], x: &[f32], out: &mut [f32]) {
    let (cg, taps) = (p.c / p.groups, p.window.taps());
    let (plane, pixels, window) = (p.window.plane(), p.window.pixels(), Window2d::new(&p.window));
    let rows = out.len() / pixels * taps;
    let places = |step: usize| (0..cg).map(|c| (c * step) as u32).collect::<Vec<_>>();
    let (apart, together) = (places(plane), places(isa.columns));
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize((cg * isa.columns + rows * BLOCK).max(buffer.len()), 0.0);
        let (tail, sums) = buffer.split_at_mut(cg * isa.columns);
        for first in (0..plane).step_by(BLOCK) {
            let count = BLOCK.min(plane - first);
            for at in (0..count).step_by(isa.columns) {
                let whole = first + at + isa.columns <= plane;
                if !whole {
                    for (to, from) in tail.chunks_exact_mut(isa.columns).zip(x.chunks_exact(plane)) {
                        to[..count - at].copy_from_slice(&from[first + at..]);
                    }
                }
                let (b, places) = if whole { (&x[first + at..], &apart) } else { (&*tail, &together) };
                for (row, height) in row_panels(isa, p, rows / taps) {
                    let a = &weights[row * cg..(row + height) * cg];
                    let c = &mut sums[row * BLOCK + at..(row + height) * BLOCK];
                    // SAFETY: A has cg x height elements, B a whole tile's columns at each place, C rows of a block from `at` on;
                    // the chooser checked the instruction set.
                    unsafe {
                        let (a, b, c) = (a.as_ptr(), b.as_ptr().cast(), c.as_mut_ptr());
                        (isa.listed.of(height, 1).1)(cg, a, b, List { rows: places.as_ptr(), panel: 0 }, c, BLOCK, false);
                    }
                }
            }
            for (row, sums) in sums.chunks_exact(BLOCK).take(rows).enumerate() {
                scatter(&window, row % taps, first, &sums[..count], &mut out[row / taps * pixels..][..pixels]);
            }
        }
    });
}

/// Adds one tap's contributions of the input pixels from `first` on to the pixels that they reach.
fn scatter(w: &Window2d, tap: usize, first: usize, mut sums: &[f32], out: &mut [f32]) {
    let Window2d { input, output, strides, .. } = *w;
    let shift = |axis: usize, tap: usize| (tap * w.dilations[axis]) as i64 - w.pads[axis];
    let (down, right) = (shift(0, tap / w.kernel[1]), shift(1, tap % w.kernel[1]));
    let step = strides[1] as i64;
    // Input columns whose pixel lies in the output: from `left` to before `end`.
    let left = if right < 0 { (-right + step - 1) / step } else { 0 };
    let end = (output[1] as i64 - right + step - 1) / step;
    let mut pixel = first;
    while !sums.is_empty() {
        let (iy, ix) = (pixel / input[1], pixel % input[1]);
        let line;
        (line, sums) = sums.split_at(sums.len().min(input[1] - ix));
        pixel += line.len();
        let Some(oy) = usize::try_from((iy * strides[0]) as i64 + down).ok().filter(|&oy| oy < output[0]) else { continue };
        let (from, to) = ((left - ix as i64).clamp(0, line.len() as i64), (end - ix as i64).clamp(0, line.len() as i64));
        if from >= to {
            continue;
        }
        let ox = (ix as i64 + from) * step + right;
        let into = &mut out[oy * output[1] + ox as usize..(oy + 1) * output[1]];
        let line = &line[from as usize..to as usize];
        match strides[1] {
            1 => wide(|| into.iter_mut().zip(line).for_each(|(o, v)| *o += v)),
            // Whole pairs are written, which becomes vector code; the last may have no second.
            2 => {
                let (pairs, rest) = into.as_chunks_mut::<2>();
                let (line, last) = line.split_at(line.len().min(pairs.len()));
                wide(|| pairs.iter_mut().zip(line).for_each(|(o, v)| *o = [o[0] + v, o[1]]));
                rest.iter_mut().zip(last).for_each(|(o, v)| *o += v);
            }
            _ => into.iter_mut().step_by(strides[1]).zip(line).for_each(|(o, v)| *o += v),
        }
    }
}
