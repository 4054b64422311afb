//! Transposed convolution: for a few output channels at a time, a matrix product gives every tap's contribution of a block of
//! input pixels, which are then added to the pixels that they reach, or written there where nothing else reaches them.

use std::cell::RefCell;
use std::ops::Range;

use smallvec::SmallVec;

use super::dense::Place;
use super::operands::Operands;
use super::window::Window2d;
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::gemm::blocks::{heights, wide};
use crate::device::cpu::gemm::core::Isa;
use crate::device::cpu::gemm::tile::List;
use crate::device::cpu::share;
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
    let (p, window) = (o.p, Window2d::new(&o.p.window));
    if p.window.pixels() == 0 || p.m / p.groups == 0 {
        return;
    }
    if window.kernel == window.strides
        && window.pads == [0, 0]
        && (0..2).all(|a| window.output[a] == window.input[a] * window.strides[a])
    {
        return once(o, window, out);
    }
    let (mg, pixels, few) = (p.m / p.groups, p.window.pixels(), together(o.isa, p));
    let starts = mg.div_ceil(few);
    let all = Disjoint::new(out);
    share::each(p.n * p.groups * starts, 1, |t| {
        let (image, group, start) = (t / starts / p.groups, t / starts % p.groups, t % starts * few);
        let first = group * mg + start;
        // SAFETY: each channel of an image belongs to one task.
        let out = unsafe { all.part((image * p.m + first) * pixels, few.min(mg - start) * pixels) };
        for (m, row) in (first..).zip(out.chunks_exact_mut(pixels)) {
            row.fill(o.bias_of(m));
        }
        let part = Part { o, image, first, channels: out.len() / pixels };
        for pixels_in in (0..p.window.plane()).step_by(BLOCK) {
            let block = pixels_in..(pixels_in + BLOCK).min(p.window.plane());
            part.products(block.clone(), |row, sums| {
                scatter(&window, row % p.window.taps(), block.start, sums, &mut out[row / p.window.taps() * pixels..][..pixels]);
            });
        }
        if o.epilogue.is_none() {
            return;
        }
        let mut sums = Vec::with_capacity(pixels);
        for (channel, row) in (first..).zip(out.chunks_exact_mut(pixels)) {
            sums.clear();
            sums.extend_from_slice(row);
            o.finish(&Place { image, channel, pixel: 0 }, &mut sums, row);
        }
    });
}

/// Where steps are as long as the window and nothing is cut off, one tap reaches each output pixel: blocks of input lines are written as
/// output lines, once.
fn once(o: &Operands, w: Window2d, out: &mut [f32]) {
    let (p, [down, right]) = (o.p, w.strides);
    let (mg, few, taps) = (p.m / p.groups, together(o.isa, p), p.window.taps());
    // Whole input lines of a block, or a part of one.
    let [lines, columns] = [(BLOCK / w.input[1]).max(1), w.input[1].min(BLOCK)];
    let blocks = [w.input[0].div_ceil(lines), w.input[1].div_ceil(columns)];
    let all = Disjoint::new(out);
    share::each(p.n * p.groups * blocks[0] * blocks[1], 1, |t| {
        let (block, t) = (t % (blocks[0] * blocks[1]), t / (blocks[0] * blocks[1]));
        let (image, group) = (t / p.groups, t % p.groups);
        let [y, x] = [block / blocks[1] * lines, block % blocks[1] * columns];
        let [height, width] = [lines.min(w.input[0] - y), columns.min(w.input[1] - x)];
        // Output lines are one piece where they are whole.
        let piece = if width == w.input[1] { height * down } else { 1 } * width * right;
        let mut pixels = vec![0.0; height * down * width * right];
        for start in (0..mg).step_by(few) {
            let part = Part { o, image, first: group * mg + start, channels: few.min(mg - start) };
            part.products(y * w.input[1] + x..y * w.input[1] + x + height * width, |row, sums| {
                let (channel, tap) = (part.first + row / taps, row % taps);
                let bias = o.bias_of(channel);
                for (sums, to) in sums.chunks_exact(width).zip(pixels.chunks_exact_mut(down * width * right)) {
                    spread(sums, bias, tap % right, right, &mut to[tap / right * width * right..][..width * right]);
                }
                if tap + 1 < taps {
                    return;
                }
                for (i, sums) in pixels.chunks_exact_mut(piece).enumerate() {
                    let pixel = (y * down + i) * w.output[1] + x * right;
                    // SAFETY: each output pixel belongs to one block.
                    let to = unsafe { all.part((image * p.m + channel) * w.pixels() + pixel, piece) };
                    o.finish(&Place { image, channel, pixel }, sums, to);
                }
            });
        }
    });
}

/// Writes a line of sums with `bias` on top to every `step`-th element from `first` on.
fn spread(sums: &[f32], bias: f32, first: usize, step: usize, to: &mut [f32]) {
    match step {
        1 => wide(|| to.iter_mut().zip(sums).for_each(|(o, v)| *o = bias + v)),
        // Whole pairs are written, which becomes vector code: the first tap writes what the second writes over.
        2 if first == 0 => wide(|| to.as_chunks_mut::<2>().0.iter_mut().zip(sums).for_each(|(o, v)| *o = [bias + v; 2])),
        2 => wide(|| to.as_chunks_mut::<2>().0.iter_mut().zip(sums).for_each(|(o, v)| *o = [o[0], bias + v])),
        _ => to.iter_mut().skip(first).step_by(step).zip(sums).for_each(|(o, v)| *o = bias + v),
    }
}

/// Some output channels of an image, of one group.
struct Part<'a> {
    o: &'a Operands<'a>,
    image: usize,
    /// The first one, and how many.
    first: usize,
    channels: usize,
}

impl Part<'_> {
    /// Gives the contributions of some input pixels, at most [`BLOCK`], row by row: every tap of every channel.
    fn products(&self, pixels: Range<usize>, mut each: impl FnMut(usize, &[f32])) {
        let (isa, p) = (self.o.isa, self.o.p);
        let (cg, taps, plane, rows) = (p.c / p.groups, p.window.taps(), p.window.plane(), self.channels * p.window.taps());
        let x = &self.o.x[(self.image * p.c + self.first / (p.m / p.groups) * cg) * plane..][..cg * plane];
        let weights = &self.o.weights[self.first * taps * cg..][..rows * cg];
        let places = |step: usize| (0..cg).map(|c| (c * step) as u32).collect::<SmallVec<[u32; 64]>>();
        let (apart, together) = (places(plane), places(isa.columns));
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize((cg * isa.columns + rows * BLOCK).max(buffer.len()), 0.0);
            let (tail, sums) = buffer.split_at_mut(cg * isa.columns);
            for at in (0..pixels.len()).step_by(isa.columns) {
                let first = pixels.start + at;
                let whole = first + isa.columns <= plane;
                if !whole {
                    for (to, from) in tail.chunks_exact_mut(isa.columns).zip(x.chunks_exact(plane)) {
                        to[..plane - first].copy_from_slice(&from[first..]);
                    }
                }
                let (b, places) = if whole { (&x[first..], &apart) } else { (&*tail, &together) };
                for (row, height) in row_panels(isa, p, self.channels) {
                    let a = &weights[row * cg..(row + height) * cg];
                    let c = &mut sums[row * BLOCK + at..(row + height) * BLOCK];
                    // SAFETY: A has cg x height elements, B a whole tile's columns at each place, C rows of a block from `at` on, which whole
                    // tiles fill; the chooser checked the instruction set.
                    unsafe {
                        let (a, b, c) = (a.as_ptr(), b.as_ptr().cast(), c.as_mut_ptr());
                        (isa.listed.of(height, 1).1)(cg, a, b, List { rows: places.as_ptr(), panel: 0 }, c, BLOCK, false);
                    }
                }
            }
            for (row, sums) in sums.chunks_exact(BLOCK).take(rows).enumerate() {
                each(row, &sums[..pixels.len()]);
            }
        });
    }
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
