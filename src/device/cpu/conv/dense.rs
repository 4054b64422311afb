//! Direct convolution in blocks of output pixels: output channels are the rows of the matrix product's tiles, pixels their
//! columns, and each tap of each channel is one row of B, read where it lies. Depthwise convolutions are groups of one row.
//!
//! 8-bit integers run through the same f32 tiles and stay exact: a sum of 256 products of values within [-255, 255] is below
//! 2^24, so every partial sum is an integer that f32 holds; such sums are added up in i32.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::few;
use super::finish::{Epilogue, Quant, error};
use super::planes::Planes;
use super::transposed;
use super::window::{Bytes, Pixels, Window};
use crate::base::{DType, Tensor};
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::gemm::blocks::{heights, wide};
use crate::device::cpu::gemm::core::Isa;
use crate::device::cpu::gemm::tile::List;
use crate::device::cpu::{Call, Packed};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;

/// Products that f32 sums exactly.
const EXACT_K: usize = 256;
/// Elements of input that a block reads at most, unless one row is more: a part of a second-level cache.
const BLOCK_INPUT: usize = 96 << 10;
/// Sums of a block's row panel at most, likewise.
const BLOCK_SUMS: usize = 14 << 10;
/// Multiplications and additions that are worth another thread.
const TASK_FLOPS: f64 = 200_000.0;

/// Weights as panels of rows: `[group][panel][k][row]`.
pub(super) fn pack(isa: &Isa, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let Problem::Conv(p) = problem else { return Ok(None) };
    let Some(Some(w)) = constants.get(p.w_at) else { return Ok(None) };
    let zeros = match p.quant.as_ref().and_then(|q| q.w_zero) {
        None => vec![0],
        Some(i) => match constants.get(i).and_then(|t| t.as_ref()).and_then(Tensor::to_i64) {
            Some(z) if !z.is_empty() => z.into_iter().map(|v| v as i32).collect(),
            _ => return Ok(None),
        },
    };
    let packed = panels(isa, p, w, &zeros)?;
    Ok(Some((Packed { parts: vec![Tensor::vector(&packed)] }, vec![p.w_at])))
}

fn panels(isa: &Isa, p: &ConvProblem, w: &Tensor, zeros: &[i32]) -> Result<Vec<f32>> {
    let values = match w.dtype() {
        DType::F32 => w.values::<f32>()?,
        _ => w.to_i64().ok_or_else(|| error("weights must be f32 or integers"))?.into_iter().map(|v| v as f32).collect(),
    };
    if p.transposed {
        return Ok(transposed::panels(isa, p, &values));
    }
    if few::takes(isa, p) {
        return Ok(few::panels(isa, p, &values));
    }
    let zero = |m: usize| zeros[if zeros.len() == 1 { 0 } else { m }] as f32;
    let (mg, k) = (p.m / p.groups, p.c / p.groups * p.kernel.iter().product::<usize>());
    let mut packed = Vec::with_capacity(values.len());
    for g in 0..p.groups {
        for (first, height) in heights(mg, isa.listed.len()) {
            let rows = g * mg + first..g * mg + first + height;
            (0..k).for_each(|i| packed.extend(rows.clone().map(|m| values[m * k + i] - zero(m))));
        }
    }
    Ok(packed)
}

pub(super) fn run(isa: &Isa, call: &mut Call) -> Result<()> {
    let Problem::Conv(p) = call.problem else { return Err(error("the problem is of another family")) };
    let quant = Quant::new(p, call)?;
    let input = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")));
    let x = input(p.x_at)?;
    let bias = p.b_at.map(input).transpose()?;
    let epilogue = Epilogue::new(p, call.inputs)?;
    let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
    let unpacked;
    let weights: &[f32] = match call.packed {
        Some(packed) => bytemuck::cast_slice(packed.parts[0].bytes()),
        None => {
            let zeros = quant.as_ref().map_or(vec![0], |q| q.w_zero.clone());
            unpacked = panels(isa, p, &input(p.w_at)?.to_tensor()?, &zeros)?;
            &unpacked
        }
    };
    if p.transposed {
        let bias = bias.map(|b| b.slice::<f32>());
        return transposed::run(isa, p, weights, x.slice(), bias, epilogue.as_ref(), out.slice());
    }
    if few::takes(isa, p) {
        let bias = bias.map(|b| b.slice::<f32>());
        few::run(isa, p, weights, x.slice(), bias, epilogue.as_ref(), out.slice());
        return Ok(());
    }
    let dense = Dense { isa, p, window: Window::new(p), weights };
    match &quant {
        None => {
            let bias = bias.map(|b| b.slice::<f32>());
            let finish = |n: usize, m: usize, pixel: usize, sums: &mut [f32], out: &mut [f32]| {
                if let Some(b) = bias {
                    wide(|| sums.iter_mut().for_each(|v| *v += b[m]));
                }
                match &epilogue {
                    Some(e) => e.row(n, m, pixel, sums, out),
                    None => out.copy_from_slice(sums),
                }
            };
            dense.run(&x.slice::<f32>(), out.slice::<f32>(), &|task, sums| task.floats(sums, &finish));
        }
        Some(q) => {
            let bias = bias.map(|b| b.slice::<i32>());
            let value = |m: usize, sum: i32| q.value(m, sum + bias.map_or(0, |b| b[m]), p.y);
            let x = Bytes::new(x, q.x_zero);
            match p.y {
                DType::I32 => dense.run(&x, out.slice::<i32>(), &|task, sums| task.integers(sums, &value)),
                DType::I8 => {
                    dense.run(&x, out.slice::<i8>(), &|task, sums| task.integers(sums, &|m, s| value(m, s) as i8));
                }
                _ => dense.run(&x, out.slice::<u8>(), &|task, sums| task.integers(sums, &|m, s| value(m, s) as u8)),
            }
        }
    }
    Ok(())
}

/// Shared by all tasks of one run.
struct Dense<'a> {
    isa: &'a Isa,
    p: &'a ConvProblem,
    window: Window,
    weights: &'a [f32],
}

/// One image, group and block of output pixels, with some of the row panels of output channels.
#[derive(Clone)]
struct Part {
    image: usize,
    group: usize,
    /// First output row and column, and how many.
    first: [usize; 2],
    size: [usize; 2],
    panels: Range<usize>,
}

/// A part with what it reads and writes.
struct Task<'a, O> {
    dense: &'a Dense<'a>,
    part: Part,
    /// Rows of B: elements of `b` from each of `places` on; pixels of the next output row `width` later.
    b: &'a [f32],
    places: &'a [u32],
    width: usize,
    /// Each (image, channel, pixel) belongs to one task.
    out: &'a Disjoint<'a, O>,
}

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Dense<'_> {
    /// Output rows and columns of a block.
    fn block(&self) -> [usize; 2] {
        let (w, columns) = (self.window, self.isa.columns);
        let (cg, mg) = (self.p.c / self.p.groups, self.p.m / self.p.groups);
        let most_pixels = BLOCK_SUMS / mg.min(self.isa.listed.len());
        let fits = |block: [usize; 2]| {
            let planes = Planes::new(w, block);
            planes.pixels(block[0], block[1]) <= most_pixels && planes.channel() * cg <= BLOCK_INPUT
        };
        let width = (1..).map(|parts| w.output[1].div_ceil(parts).next_multiple_of(columns).min(w.output[1]));
        let width = width.clone().find(|&n| n <= columns || fits([1, n])).unwrap_or(columns);
        // As many rows as fit, in blocks of about the same height, and some blocks for each thread.
        let most = (1..=w.output[0]).take_while(|&rows| fits([rows, width])).last().unwrap_or(1);
        let others = self.p.n * self.p.groups * w.output[1].div_ceil(width);
        let wanted = if self.p.flops() < TASK_FLOPS { 1 } else { (2 * rayon::current_num_threads()).div_ceil(others) };
        let blocks = w.output[0].div_ceil(most).max(wanted.min(w.output[0]));
        [w.output[0].div_ceil(blocks), width]
    }

    fn run<X: Source + Sync, O: Send + Sync + Copy>(&self, x: &X, out: &mut [O], work: &(dyn Fn(Task<O>, &mut [f32]) + Sync)) {
        let (p, w) = (self.p, self.window);
        let (cg, mg) = (p.c / p.groups, p.m / p.groups);
        if cg * w.taps() == 0 || w.pixels() == 0 || out.is_empty() {
            return;
        }
        let planes = Planes::new(w, self.block());
        let [rows, columns] = planes.block;
        let blocks = [w.output[0].div_ceil(rows), w.output[1].div_ceil(columns)];
        let (threads, panels) = (rayon::current_num_threads(), mg.div_ceil(self.isa.listed.len()));
        let outer = p.n * p.groups * blocks[0] * blocks[1];
        // With few blocks of pixels, threads share the output channels of each.
        let parts = if outer >= threads { 1 } else { threads.div_ceil(outer).min(panels) };
        let places = planes.offsets(cg);
        let straight: Vec<u32> = if w.pointwise() { (0..cg).map(|c| (c * w.plane()) as u32).collect() } else { Vec::new() };
        let shared = &Disjoint::new(out);
        let one = |t: usize| {
            let (part, t) = (t % parts, t / parts);
            let (block, t) = (t % (blocks[0] * blocks[1]), t / (blocks[0] * blocks[1]));
            let (group, image) = (t % p.groups, t / p.groups);
            let first = [block / blocks[1] * rows, block % blocks[1] * columns];
            let size = [rows.min(w.output[0] - first[0]), columns.min(w.output[1] - first[1])];
            let pixels = planes.pixels(size[0], size[1]).next_multiple_of(self.isa.columns);
            let own = (image * p.c + group * cg) * w.plane();
            let panels = part * panels / parts..(part + 1) * panels / parts;
            let part = Part { image, group, first, size, panels };
            // Pixels that are read where they lie may be read beyond the last one, but not beyond the image.
            let lies = x.floats().filter(|_| w.pointwise()).map(|x| &x[own + first[1]..]);
            let lies = lies.filter(|x| x.len() >= (cg - 1) * w.plane() + pixels);
            let input = if lies.is_some() { 0 } else { planes.channel() * cg };
            BUFFER.with_borrow_mut(|buffer| {
                let need = input + self.isa.columns + pixels * self.isa.listed.len().min(mg);
                if buffer.len() < need {
                    buffer.resize(need, 0.0);
                }
                let (b, sums) = buffer.split_at_mut(input + self.isa.columns);
                match lies {
                    Some(x) => work(Task { dense: self, part, b: x, places: &straight, width: size[1], out: shared }, sums),
                    None => {
                        planes.fill(&x.offset(own), first, size[0], size[1], &mut b[..input]);
                        work(Task { dense: self, part, b, places: &places, width: planes.width(), out: shared }, sums);
                    }
                }
            });
        };
        let tasks = outer * parts;
        if tasks > 1 && threads > 1 && p.flops() > TASK_FLOPS {
            let least = (TASK_FLOPS * tasks as f64 / p.flops()) as usize;
            (0..tasks).into_par_iter().with_min_len(least.clamp(1, tasks.div_ceil(threads))).for_each(one);
        } else {
            (0..tasks).for_each(one);
        }
    }
}

/// Input elements from a position on.
pub(super) trait Source: Pixels + Sized {
    /// The same, `by` elements later.
    fn offset(&self, by: usize) -> Self;

    /// The elements, where they are stored as the tiles read them.
    fn floats(&self) -> Option<&[f32]>;
}

impl Source for &[f32] {
    fn offset(&self, by: usize) -> Self {
        &self[by..]
    }

    fn floats(&self) -> Option<&[f32]> {
        Some(self)
    }
}

impl Source for Bytes<'_> {
    fn offset(&self, by: usize) -> Self {
        Bytes { bytes: &self.bytes[by..], ..*self }
    }

    fn floats(&self) -> Option<&[f32]> {
        None
    }
}

impl<O: Copy> Task<'_, O> {
    /// The output of channel `m` (in the group), the rows of this task's block.
    #[allow(clippy::mut_from_ref)]
    fn row(&self, m: usize, row: usize, rows: usize) -> &mut [O] {
        let (p, w) = (self.dense.p, &self.dense.window);
        let channel = self.part.image * p.m + self.part.group * (p.m / p.groups) + m;
        let at = channel * w.pixels() + (self.part.first[0] + row) * w.output[1] + self.part.first[1];
        let len = (rows - 1) * w.output[1] + self.part.size[1];
        // SAFETY: the pixels belong to this task alone (several rows only when the block is as wide as the output), and are used
        // for one piece at a time.
        unsafe { self.out.part(at, len) }
    }

    /// Pixels of a row of sums, those left out included, in whole tiles.
    fn pixels(&self) -> usize {
        ((self.part.size[0] - 1) * self.width + self.part.size[1]).next_multiple_of(self.dense.isa.columns)
    }

    /// The row panels of this task: first output channel of the group, and how many.
    fn row_panels(&self) -> impl Iterator<Item = (usize, usize)> {
        let mg = self.dense.p.m / self.dense.p.groups;
        heights(mg, self.dense.isa.listed.len()).skip(self.part.panels.start).take(self.part.panels.len())
    }

    /// Sums of a row panel over some of its taps, `[row][pixel]`.
    fn sums(&self, (first, height): (usize, usize), taps: Range<usize>, sums: &mut [f32]) {
        let (isa, pixels, k) = (self.dense.isa, self.pixels(), self.places.len());
        let mg = self.dense.p.m / self.dense.p.groups;
        let a = &self.dense.weights[(self.part.group * mg + first) * k..][taps.start * height..taps.end * height];
        let places = &self.places[taps.clone()];
        let last = places.iter().max().map_or(0, |&p| p as usize);
        assert!(self.b.len() >= last + pixels && sums.len() >= height * pixels, "invariant: tiles lie in the block");
        for at in (0..pixels).step_by(isa.columns) {
            let (b, c) = (self.b[at..].as_ptr().cast(), sums[at..].as_mut_ptr());
            // SAFETY: A has taps x height elements, each row of B and C the tile's columns from `at` on (asserted); the chooser
            // checked the instruction set.
            unsafe { isa.listed[height - 1](taps.len(), a.as_ptr(), b, List(places.as_ptr()), c, pixels, false) };
        }
    }

    /// Hands out the output of channel `m` in contiguous pieces, each with the sums' place: `each(pixel, place, out)`.
    fn pieces(&self, m: usize, mut each: impl FnMut(usize, usize, &mut [O])) {
        let width = self.dense.window.output[1];
        let pixel = self.part.first[0] * width + self.part.first[1];
        if self.part.size[1] == width {
            return each(pixel, 0, self.row(m, 0, self.part.size[0]));
        }
        for r in 0..self.part.size[0] {
            each(pixel + r * width, r * self.part.size[1], self.row(m, r, 1));
        }
    }

    /// Moves a row's sums together, over the columns left out.
    fn compact<T: Copy>(&self, sums: &mut [T]) {
        if self.width > self.part.size[1] {
            for r in 1..self.part.size[0] {
                sums.copy_within(r * self.width..r * self.width + self.part.size[1], r * self.part.size[1]);
            }
        }
    }

    fn channel(&self, m: usize) -> usize {
        self.part.group * (self.dense.p.m / self.dense.p.groups) + m
    }
}

/// Finishes a row: image, channel, first pixel, sums, and where to.
type Finish<'f> = dyn Fn(usize, usize, usize, &mut [f32], &mut [f32]) + Sync + 'f;

impl Task<'_, f32> {
    fn floats(&self, sums: &mut [f32], finish: &Finish) {
        for (first, height) in self.row_panels() {
            self.sums((first, height), 0..self.places.len(), sums);
            for (m, sums) in (first..).zip(sums.chunks_exact_mut(self.pixels()).take(height)) {
                self.compact(sums);
                self.pieces(m, |pixel, at, out| {
                    finish(self.part.image, self.channel(m), pixel, &mut sums[at..at + out.len()], out);
                });
            }
        }
    }
}

impl<O: Copy> Task<'_, O> {
    fn integers(&self, sums: &mut [f32], value: &dyn Fn(usize, i32) -> O) {
        let pixels = self.pixels();
        let mut exact = vec![0i32; self.dense.isa.listed.len() * pixels];
        for (first, height) in self.row_panels() {
            for start in (0..self.places.len()).step_by(EXACT_K) {
                self.sums((first, height), start..(start + EXACT_K).min(self.places.len()), sums);
                for (e, s) in exact[..height * pixels].iter_mut().zip(&*sums) {
                    *e = if start == 0 { 0 } else { *e } + *s as i32;
                }
            }
            for (m, sums) in (first..).zip(exact.chunks_exact_mut(pixels).take(height)) {
                self.compact(sums);
                let channel = self.channel(m);
                self.pieces(m, |_, at, out| {
                    out.iter_mut().zip(&sums[at..]).for_each(|(o, &sum)| *o = value(channel, sum));
                });
            }
        }
    }
}
