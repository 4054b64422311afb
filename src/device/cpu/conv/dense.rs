//! Implicit GEMM: output channels are rows, pixels are columns, and no im2col buffer is larger than a few panels.
//!
//! 8-bit integers run through the same f32 tiles and stay exact: a sum of 256 products of values within [-255, 255] is below
//! 2^24, so every partial sum is an integer that f32 holds; such sums are added up in i32.

use rayon::prelude::*;

use super::finish::{Epilogue, Quant, error};
use super::tile::Tile;
use super::transposed;
use super::window::{Bytes, Pixels, Window};
use crate::base::{DType, Tensor};
use crate::device::cpu::{Call, Packed};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;

/// Products that f32 sums exactly.
const EXACT_K: usize = 256;
/// Bytes of packed pixels that a task keeps: half of a second-level cache.
const PANEL_BYTES: usize = 384 << 10;
/// Panels of one task at most.
const MAX_PANELS: usize = 16;

/// Weights as panels of rows: `[group][panel][k][mr]`, zero rows at the end of a group.
pub(super) fn pack(tile: &Tile, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let Problem::Conv(p) = problem else { return Ok(None) };
    let Some(Some(w)) = constants.get(p.w_at) else { return Ok(None) };
    let zeros = match p.quant.as_ref().and_then(|q| q.w_zero) {
        None => vec![0],
        Some(i) => match constants.get(i).and_then(|t| t.as_ref()).and_then(Tensor::to_i64) {
            Some(z) if !z.is_empty() => z.into_iter().map(|v| v as i32).collect(),
            _ => return Ok(None),
        },
    };
    let packed = rows(tile, p, w, &zeros)?;
    Ok(Some((Packed { parts: vec![Tensor::vector(&packed)] }, vec![p.w_at])))
}

fn rows(tile: &Tile, p: &ConvProblem, w: &Tensor, zeros: &[i32]) -> Result<Vec<f32>> {
    let values: Vec<f32> = match w.dtype() {
        DType::F32 => w.values::<f32>()?.into_owned(),
        _ => w.to_i64().ok_or_else(|| error("weights must be f32 or integers"))?.into_iter().map(|v| v as f32).collect(),
    };
    let zero = |m: usize| zeros[if zeros.len() == 1 { 0 } else { m }] as f32;
    let taps: usize = p.kernel.iter().product();
    // Rows and depth of one group's matrix: a transposed convolution has a row for each output channel and tap.
    let (mg, cg) = (p.m / p.groups, p.c / p.groups);
    let (rows, k) = if p.transposed { (mg * taps, cg) } else { (mg, cg * taps) };
    let mut packed = Vec::with_capacity(p.groups * rows.next_multiple_of(tile.mr) * k);
    for g in 0..p.groups {
        for first in (0..rows).step_by(tile.mr) {
            for i in 0..k {
                packed.extend((first..first + tile.mr).map(|r| match r {
                    r if r >= rows => 0.0,
                    r if p.transposed => values[(g * cg + i) * rows + r],
                    r => values[(g * mg + r) * k + i] - zero(g * mg + r),
                }));
            }
        }
    }
    Ok(packed)
}

pub(super) fn run(tile: &Tile, call: &mut Call) -> Result<()> {
    let Problem::Conv(p) = call.problem else { return Err(error("the problem is of another family")) };
    let quant = Quant::new(p, call)?;
    let input = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")));
    let unpacked;
    let weights: &[f32] = match call.packed {
        Some(packed) => bytemuck::cast_slice(packed.parts[0].bytes()),
        None => {
            let zeros = quant.as_ref().map_or(vec![0], |q| q.w_zero.clone());
            unpacked = rows(tile, p, &input(p.w_at)?.to_tensor()?, &zeros)?;
            &unpacked
        }
    };
    let x = input(p.x_at)?;
    let bias = p.b_at.map(input).transpose()?;
    let epilogue = Epilogue::new(p, call.inputs)?;
    let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
    if p.transposed {
        let bias = bias.map(|b| b.slice::<f32>());
        return transposed::run(tile, p, weights, x.slice(), bias, epilogue.as_ref(), out.slice());
    }
    let dense = Dense { tile, p, window: Window::new(p), weights };
    match &quant {
        None => {
            let bias = bias.map(|b| b.slice::<f32>());
            let finish = |n: usize, m: usize, pixel: usize, row: &mut [f32], copy: &mut [f32]| {
                if let Some(b) = bias {
                    row.iter_mut().for_each(|v| *v += b[m]);
                }
                if let Some(e) = &epilogue {
                    e.row(n, m, pixel, row, copy);
                }
            };
            dense.run(&x.slice::<f32>(), out.slice::<f32>(), usize::MAX, &|task| task.floats(&finish));
        }
        Some(q) => {
            let bias = bias.map(|b| b.slice::<i32>());
            let value = |m: usize, sum: i32| q.value(m, sum + bias.map_or(0, |b| b[m]), p.y);
            let x = Bytes::new(x, q.x_zero);
            match p.y {
                DType::I32 => dense.run(&x, out.slice::<i32>(), EXACT_K, &|task| task.integers(&value)),
                DType::I8 => dense.run(&x, out.slice::<i8>(), EXACT_K, &|task| task.integers(&|m, s| value(m, s) as i8)),
                _ => dense.run(&x, out.slice::<u8>(), EXACT_K, &|task| task.integers(&|m, s| value(m, s) as u8)),
            }
        }
    }
    Ok(())
}

/// Shared by all tasks of one run.
struct Dense<'a> {
    tile: &'a Tile,
    p: &'a ConvProblem,
    window: Window,
    weights: &'a [f32],
}

/// One image, group and range of pixels, with its packed pixels and some of the output channels.
struct Task<'a, 'd, O> {
    dense: &'a Dense<'d>,
    n: usize,
    group: usize,
    first: usize,
    pixels: usize,
    rows: std::ops::Range<usize>,
    panels: &'a [f32],
    chunk: usize,
    out: Shared<O>,
}

/// The output, written by tasks in disjoint parts.
#[derive(Clone, Copy)]
struct Shared<O>(*mut O, usize);

// SAFETY: tasks write disjoint parts: each (image, channel, pixel) belongs to one task.
unsafe impl<O: Send> Send for Shared<O> {}
// SAFETY: as above.
unsafe impl<O: Send> Sync for Shared<O> {}

thread_local! {
    static PANELS: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Dense<'_> {
    fn run<X: Offset + Sync, O: Send + Sync + Copy>(&self, x: &X, out: &mut [O], chunk: usize, work: &(dyn Fn(Task<O>) + Sync)) {
        let (p, nr) = (self.p, self.tile.nr);
        let (pixels, cg, mg) = (self.window.pixels(), p.c / p.groups, p.m / p.groups);
        let k = cg * self.window.taps();
        if k == 0 || pixels == 0 || out.is_empty() {
            return;
        }
        let panels = (PANEL_BYTES / (k * nr * 4)).clamp(1, MAX_PANELS);
        let (threads, span) = (rayon::current_num_threads(), panels * nr);
        let blocks = pixels.div_ceil(span);
        let row_panels = mg.div_ceil(self.tile.mr);
        // With few blocks of pixels, threads share the output channels of each.
        let parts =
            if p.n * p.groups * blocks >= threads { 1 } else { threads.div_ceil(p.n * p.groups * blocks).min(row_panels) };
        let tasks = p.n * p.groups * blocks * parts;
        let shared = Shared(out.as_mut_ptr(), out.len());
        let one = |t: usize| {
            let (part, t) = (t % parts, t / parts);
            let (block, t) = (t % blocks, t / blocks);
            let (group, n) = (t % p.groups, t / p.groups);
            let first = block * span;
            let count = span.min(pixels - first);
            let own = x.offset((n * p.c + group * cg) * self.window.plane());
            let rows = part * row_panels / parts..(part + 1) * row_panels / parts;
            PANELS.with_borrow_mut(|buffer| {
                let len = count.div_ceil(nr) * k * nr;
                if buffer.len() < len {
                    buffer.resize(len, 0.0);
                }
                for (i, panel) in buffer[..len].chunks_exact_mut(k * nr).enumerate() {
                    self.window.pack(&own, cg, first + i * nr, nr, panel);
                }
                work(Task { dense: self, n, group, first, pixels: count, rows, panels: &buffer[..len], chunk, out: shared });
            });
        };
        if tasks > 1 && threads > 1 && p.flops() > 100_000.0 {
            (0..tasks).into_par_iter().for_each(one);
        } else {
            (0..tasks).for_each(one);
        }
    }
}

/// Input elements from a position on.
pub(super) trait Offset: Pixels + Sized {
    /// The same, `by` elements later.
    fn offset(&self, by: usize) -> Self;
}

impl Offset for &[f32] {
    fn offset(&self, by: usize) -> Self {
        &self[by..]
    }
}

impl Offset for Bytes<'_> {
    fn offset(&self, by: usize) -> Self {
        Bytes { bytes: &self.bytes[by..], ..*self }
    }
}

impl<O: Copy> Task<'_, '_, O> {
    /// The output row of channel `m` (in the group) of this task's pixels.
    #[allow(clippy::mut_from_ref)]
    fn row(&self, m: usize) -> &mut [O] {
        let p = self.dense.p;
        let channel = self.group * (p.m / p.groups) + m;
        let at = (self.n * p.m + channel) * self.dense.window.pixels() + self.first;
        assert!(at + self.pixels <= self.out.1, "invariant: rows lie in the output");
        // SAFETY: inside the output (asserted); the part belongs to this task alone and is used for one row at a time.
        unsafe { std::slice::from_raw_parts_mut(self.out.0.add(at), self.pixels) }
    }

    /// Computes every tile: `each(row panel, pixel offset, tile, first chunk)`.
    fn tiles(&self, row_panel: usize, each: &mut dyn FnMut(usize, &[f32], bool)) {
        let (tile, k) = (self.dense.tile, self.panels.len() / self.pixels.div_ceil(self.dense.tile.nr) / self.dense.tile.nr);
        let (mr, nr) = (tile.mr, tile.nr);
        let group_rows = (self.dense.p.m / self.dense.p.groups).div_ceil(mr);
        let a = &self.dense.weights[(self.group * group_rows + row_panel) * k * mr..][..k * mr];
        let mut sums = [0f32; 12 * 32];
        let sums = &mut sums[..mr * nr];
        for (i, b) in self.panels.chunks_exact(k * nr).enumerate() {
            for start in (0..k).step_by(self.chunk.min(k)) {
                let len = self.chunk.min(k - start);
                let (a, b) = (&a[start * mr..(start + len) * mr], &b[start * nr..(start + len) * nr]);
                // SAFETY: the slices have the lengths that the tile reads and writes; the chooser checked the instruction set.
                unsafe { (tile.run)(len, a.as_ptr(), b.as_ptr(), sums.as_mut_ptr()) };
                each(i * nr, sums, start == 0);
            }
        }
    }

    fn rows_of(&self, row_panel: usize) -> std::ops::Range<usize> {
        let mr = self.dense.tile.mr;
        row_panel * mr..((row_panel + 1) * mr).min(self.dense.p.m / self.dense.p.groups)
    }
}

/// Finishes a row: image, channel, first pixel, sums, and as much space again.
type Finish<'f> = dyn Fn(usize, usize, usize, &mut [f32], &mut [f32]) + Sync + 'f;

impl Task<'_, '_, f32> {
    fn floats(&self, finish: &Finish) {
        let nr = self.dense.tile.nr;
        let mut copy = vec![0f32; self.pixels];
        for row_panel in self.rows.clone() {
            let rows = self.rows_of(row_panel);
            self.tiles(row_panel, &mut |pixel, sums, _| {
                let n = nr.min(self.pixels - pixel);
                for (m, sums) in rows.clone().zip(sums.chunks_exact(nr)) {
                    self.row(m)[pixel..pixel + n].copy_from_slice(&sums[..n]);
                }
            });
            let base = self.group * (self.dense.p.m / self.dense.p.groups);
            for m in rows {
                finish(self.n, base + m, self.first, self.row(m), &mut copy);
            }
        }
    }
}

impl<O: Copy> Task<'_, '_, O> {
    fn integers(&self, value: &dyn Fn(usize, i32) -> O) {
        let (mr, nr) = (self.dense.tile.mr, self.dense.tile.nr);
        let base = self.group * (self.dense.p.m / self.dense.p.groups);
        let width = self.pixels.next_multiple_of(nr);
        let mut exact = vec![0i32; mr * width];
        for row_panel in self.rows.clone() {
            self.tiles(row_panel, &mut |pixel, sums, first| {
                for (r, sums) in sums.chunks_exact(nr).enumerate() {
                    let into = &mut exact[r * width + pixel..][..nr];
                    for (e, s) in into.iter_mut().zip(sums) {
                        *e = if first { 0 } else { *e } + *s as i32;
                    }
                }
            });
            for (r, m) in self.rows_of(row_panel).enumerate() {
                for (o, &sum) in self.row(m).iter_mut().zip(&exact[r * width..]) {
                    *o = value(base + m, sum);
                }
            }
        }
    }
}
