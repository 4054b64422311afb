//! Maxima and averages over windows, a band of output rows at a time: the input rows under a window are joined into one line,
//! the line's columns are split by the stride (`[phase][line][column]`), and then every tap of a row is a shift of a whole band.
//! f32 inside, whatever the element type.

use super::geometry::{Geometry, counted};
use super::reference::error;
use crate::device::cpu::isa::{Isa, Work, fold_lanes};
use crate::device::cpu::rows::each;
use crate::device::cpu::{Call, CpuCode};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::pool::Pooling;

/// Elements of a band of joined lines: with its phases and sums it stays in the first cache.
const BAND: usize = 2 << 10;

/// Solves the problems that `kernel::pool` accepts for these kernels.
pub(super) struct On(pub Isa);

impl CpuCode for On {
    fn run(&self, call: &mut Call) -> Result<()> {
        let Problem::Pool(p) = call.problem else { return Err(error("the problem is of another family")) };
        let x = call.inputs.first().and_then(|v| v.as_ref()).ok_or_else(|| error("the image is missing"))?;
        let Some(Some(y)) = call.outputs.first_mut() else { return Ok(()) };
        let geometry = Geometry::new(p);
        if geometry.whole() {
            each(x, y, geometry.sizes(), |_, x, y| self.0.run(Planes { pooling: p.pooling, x, y }));
        } else {
            let bands = Bands::new(&geometry);
            each(x, y, geometry.sizes(), |_, x, y| self.0.run(Windows { bands: &bands, x, y }));
        }
        Ok(())
    }
}

/// The larger of two numbers; NaN when one is.
#[inline(always)]
fn larger(m: f32, v: f32) -> f32 {
    if v > m || v.is_nan() { v } else { m }
}

#[inline(always)]
fn sum(a: f32, b: f32) -> f32 {
    a + b
}

/// One result for each plane.
struct Planes<'a> {
    pooling: Pooling,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Work for Planes<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let size = self.x.len() / self.y.len();
        for (x, y) in self.x.chunks_exact(size).zip(self.y) {
            *y = match self.pooling {
                Pooling::Max { .. } => fold_lanes(x, f32::NEG_INFINITY, |v| v, larger),
                _ => fold_lanes(x, 0.0, |v| v, sum) / size as f32,
            };
        }
    }
}

/// What all planes share.
struct Bands {
    pooling: Pooling,
    /// Elements of an input and of an output plane.
    sizes: [usize; 2],
    /// Elements of an input and of an output row.
    widths: [usize; 2],
    /// For each output row: the input rows under its windows.
    rows: Vec<Vec<usize>>,
    /// For each output row and each column: the factors of the number of elements averaged.
    counts: [Vec<f32>; 2],
    /// Elements before a row.
    pad: usize,
    stride: usize,
    /// Columns of each phase of a line.
    columns: usize,
    /// Where the taps of a row read: phase and column.
    taps: Vec<(usize, usize)>,
    /// Output rows of a band.
    lines: usize,
}

impl Bands {
    fn new(g: &Geometry) -> Bands {
        let (p, w, last) = (g.p, &g.p.window, g.p.window.rank() - 1);
        let count: usize = w.output[..last].iter().product();
        let rows_of = |i| {
            let mut rows = Vec::new();
            g.taps(&g.window(last, i), &mut |row| rows.push(row));
            rows
        };
        let include_pad = matches!(p.pooling, Pooling::Average { include_pad: true });
        let of_row = |i| counted(&g.window(last, i), include_pad) as f32;
        let of_column = |s| counted(std::slice::from_ref(s), include_pad) as f32;
        // A single column needs no steps, however long they would be.
        let stride = if w.output[last] == 1 { 1 } else { w.strides[last] };
        let tap = |t: usize| ((t * w.dilations[last]) % stride, (t * w.dilations[last]) / stride);
        let taps: Vec<_> = (0..w.kernel[last]).map(tap).collect();
        let columns = w.output[last] + taps.iter().map(|t| t.1).max().unwrap_or(0);
        Bands {
            pooling: p.pooling,
            sizes: g.sizes(),
            widths: [w.input[last], w.output[last]],
            rows: (0..count).map(rows_of).collect(),
            counts: [(0..count).map(of_row).collect(), g.columns().iter().map(of_column).collect()],
            pad: w.pads[last] as usize,
            stride,
            columns,
            taps,
            lines: (BAND / (columns * stride)).min(count).max(1),
        }
    }
}

struct Windows<'a> {
    bands: &'a Bands,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Work for Windows<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let b = self.bands;
        let mut buffers = Buffers {
            joined: vec![0.0; b.lines * b.columns * b.stride],
            split: vec![0.0; if b.stride > 1 { b.lines * b.columns * b.stride } else { 0 }],
            results: vec![0.0; b.lines * b.columns],
        };
        for (x, y) in self.x.chunks_exact(b.sizes[0]).zip(self.y.chunks_exact_mut(b.sizes[1])) {
            for (i, y) in y.chunks_mut(b.lines * b.widths[1]).enumerate() {
                let first = i * b.lines;
                match b.pooling {
                    Pooling::Max { .. } => buffers.band(b, x, first, y, f32::NEG_INFINITY, larger),
                    _ => {
                        buffers.band(b, x, first, y, 0.0, sum);
                        average(b, first, y);
                    }
                }
            }
        }
    }
}

struct Buffers {
    joined: Vec<f32>,
    split: Vec<f32>,
    results: Vec<f32>,
}

impl Buffers {
    /// Joins the elements under the windows of the output rows from `first` on.
    #[inline(always)]
    fn band(&mut self, b: &Bands, x: &[f32], first: usize, y: &mut [f32], start: f32, join: impl Fn(f32, f32) -> f32 + Copy) {
        let lines = y.len() / b.widths[1];
        let (length, all) = (b.columns * b.stride, lines * b.columns);
        let joined = &mut self.joined[..lines * length];
        for (line, rows) in joined.chunks_exact_mut(length).zip(&b.rows[first..]) {
            join_rows(b, x, rows, line, start, join);
        }
        let phases = match b.stride {
            1 => joined,
            2 => split_pairs(joined, &mut self.split[..2 * all]),
            n => split(n, joined, &mut self.split[..n * all]),
        };
        // Short lines are joined in one run: what the taps find between the lines' outputs is no output.
        let (runs, length) = if b.columns <= 2 * b.widths[1] { (1, all) } else { (lines, b.widths[1]) };
        let results = &mut self.results[..all];
        for from in (0..runs).map(|i| i * b.columns) {
            for (i, &(phase, shift)) in b.taps.iter().enumerate() {
                let at = phase * all + from + shift;
                let values = &phases[at..(at + length).min((phase + 1) * all)];
                let into = &mut results[from..from + values.len()];
                match i {
                    0 => into.copy_from_slice(values),
                    _ => into.iter_mut().zip(values).for_each(|(r, &v)| *r = join(*r, v)),
                }
            }
        }
        for (y, r) in y.chunks_exact_mut(b.widths[1]).zip(results.chunks_exact(b.columns)) {
            y.copy_from_slice(&r[..b.widths[1]]);
        }
    }
}

/// The rows joined, with `start` where the line is padding.
#[inline(always)]
fn join_rows(b: &Bands, x: &[f32], rows: &[usize], line: &mut [f32], start: f32, join: impl Fn(f32, f32) -> f32 + Copy) {
    line.fill(start);
    let Some(into) = line.get_mut(b.pad..) else { return };
    let n = into.len().min(b.widths[0]);
    let row = |r: usize| &x[r * b.widths[0]..][..n];
    let (pairs, rest) = rows.as_chunks::<2>();
    for &[one, two] in pairs {
        for ((v, &one), &two) in into.iter_mut().zip(row(one)).zip(row(two)) {
            *v = join(join(*v, one), two);
        }
    }
    for &one in rest {
        into.iter_mut().zip(row(one)).for_each(|(v, &one)| *v = join(*v, one));
    }
}

/// Both phases in one pass, which becomes shuffles.
#[inline(always)]
fn split_pairs<'a>(lines: &[f32], phases: &'a mut [f32]) -> &'a mut [f32] {
    let (pairs, _) = lines.as_chunks::<2>();
    let (even, odd) = phases.split_at_mut(pairs.len());
    for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
        [*even, *odd] = *pair;
    }
    phases
}

#[inline(always)]
fn split<'a>(stride: usize, lines: &[f32], phases: &'a mut [f32]) -> &'a mut [f32] {
    for (phase, into) in phases.chunks_exact_mut(lines.len() / stride).enumerate() {
        into.iter_mut().zip(lines.iter().skip(phase).step_by(stride)).for_each(|(v, &x)| *v = x);
    }
    phases
}

/// Divides sums by the number of elements in each window.
#[inline(always)]
fn average(b: &Bands, first: usize, y: &mut [f32]) {
    for (y, &rows) in y.chunks_exact_mut(b.widths[1]).zip(&b.counts[0][first..]) {
        y.iter_mut().zip(&b.counts[1]).for_each(|(y, &columns)| *y /= rows * columns);
    }
}
