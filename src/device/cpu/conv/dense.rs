//! Direct convolution in blocks of output pixels: output channels are the rows of the matrix product's tiles, pixels their
//! columns, and each tap of each channel is one row of B, read where it lies. Depthwise convolutions are groups of one row.

use std::cell::RefCell;
use std::ops::Range;

use super::planes::Planes;
use super::window::Window2d;
use crate::base::AlignedBytes;
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::gemm::blocks::{heights, with_buffer};
use crate::device::cpu::share;
use crate::graph::problem::ConvProblem;

/// Bytes of input that a block reads at most, unless one row is more: a part of a second-level cache.
const BLOCK_INPUT_BYTES: usize = 384 << 10;
/// Pixels of a block at most where row panels have 14 rows and more; with fewer channels there are more, so that sums stay as many.
const BLOCK_PIXELS: usize = 1 << 10;
/// Multiplications and additions that are worth another thread.
const TASK_FLOPS: f64 = 200_000.0;

/// The numbers of a convolution: how the rows of B hold them, and the tiles that multiply them. Sums are of four bytes.
pub(super) trait Numbers: Sync {
    /// What is summed.
    type Sum: bytemuck::Pod;

    /// Most rows and columns of a tile.
    fn tile(&self) -> [usize; 2];

    /// Units of one pixel of a group, and bytes of a unit.
    fn units(&self) -> [usize; 2];

    /// Units that tiles read beyond the last one, and what rows of sums are written in multiples of.
    fn spare(&self) -> [usize; 2] {
        [0, 1]
    }

    /// Whether a row of B begins at a tap, and does not hold it beside another.
    fn begins(&self, _tap: usize) -> bool {
        true
    }

    /// Units from element `at` of the image on, where they need no laying out.
    fn in_place(&self, _at: usize) -> Option<&[u8]> {
        None
    }

    /// Lays out what a block of `size` output rows and columns from `first` on reads; the group begins at element `at`.
    fn fill(&self, planes: &Planes, at: usize, first: [usize; 2], size: [usize; 2], out: &mut [u8]);

    /// Sums of a row panel, `[row][pixel]`.
    fn sums(&self, panel: &Panel, sums: &mut [Self::Sum]);
}

/// Some output channels of a block of pixels.
pub(super) struct Panel<'a> {
    /// The first channel, and how many.
    pub channel: usize,
    pub height: usize,
    /// Rows of B: units of `b` from each of `places` on.
    pub b: &'a [u8],
    pub places: &'a [u32],
    /// Pixels of a row of sums, in whole tiles.
    pub pixels: usize,
}

impl Panel<'_> {
    /// Units of `b` that tiles read at most.
    pub fn reach(&self) -> usize {
        self.places.iter().max().map_or(0, |&p| p as usize) + self.pixels
    }
}

/// Where a piece of the output lies.
pub(super) struct Place {
    pub image: usize,
    pub channel: usize,
    /// The first pixel.
    pub pixel: usize,
}

/// Finishes a piece: its sums, and where to.
type Finish<'f, S, O> = dyn Fn(Place, &mut [S], &mut [O]) + Sync + 'f;

/// Shared by all tasks of one run.
pub(super) struct Dense<'a, N> {
    pub p: &'a ConvProblem,
    /// In units.
    pub window: Window2d,
    pub numbers: &'a N,
}

/// One image, group and block of output pixels, with some of the row panels of output channels.
struct Part {
    image: usize,
    group: usize,
    /// First output row and column, and how many.
    first: [usize; 2],
    size: [usize; 2],
    panels: Range<usize>,
}

/// A part with what it reads and writes.
struct Task<'a, N, O> {
    dense: &'a Dense<'a, N>,
    part: Part,
    b: &'a [u8],
    places: &'a [u32],
    /// Units from one output row's pixels to the next's.
    width: usize,
    out: &'a Disjoint<'a, O>,
}

thread_local! {
    static BLOCK: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

impl<N: Numbers> Dense<'_, N> {
    /// Output rows and columns of a block.
    fn block(&self) -> [usize; 2] {
        let (w, [height, columns], [units, unit_bytes]) = (self.window, self.numbers.tile(), self.numbers.units());
        let most_pixels = BLOCK_PIXELS * height.max(14) / (self.p.m / self.p.groups).min(height);
        let fits = |block: [usize; 2]| {
            let planes = Planes::new(w, block);
            let bytes = planes.channel() * units * unit_bytes;
            planes.pixels(block[0], block[1]) <= most_pixels && bytes <= BLOCK_INPUT_BYTES
        };
        let width = (1..).map(|parts| w.output[1].div_ceil(parts).next_multiple_of(columns).min(w.output[1]));
        let (threads, images) = (rayon::current_num_threads(), self.p.n * self.p.groups);
        // Few blocks of one row are as many for each thread.
        let even = |blocks: usize| blocks < threads || blocks >= 4 * threads || blocks.is_multiple_of(threads);
        let good = |n: usize| fits([1, n]) && (w.output[0] > 1 || even(images * w.output[1].div_ceil(n)));
        let width = width.clone().find(|&n| n <= columns || good(n)).unwrap_or(columns);
        // As many rows as fit, in blocks of about the same height, and some blocks for each thread.
        let most = (1..=w.output[0]).take_while(|&rows| fits([rows, width])).last().unwrap_or(1);
        let others = images * w.output[1].div_ceil(width);
        let wanted = if self.p.flops() < TASK_FLOPS { 1 } else { (2 * threads).div_ceil(others) };
        let blocks = w.output[0].div_ceil(most).max(wanted.min(w.output[0]));
        [w.output[0].div_ceil(blocks), width]
    }

    /// Computes all sums and hands them out, each piece once, from several threads.
    pub fn run<O: Copy + Send>(&self, out: &mut [O], finish: &Finish<N::Sum, O>) {
        let (p, w) = (self.p, self.window);
        let (cg, mg) = (p.c / p.groups, p.m / p.groups);
        if cg * w.taps() == 0 || w.pixels() == 0 || out.is_empty() {
            return;
        }
        let ([height, tile_columns], [units, unit_bytes]) = (self.numbers.tile(), self.numbers.units());
        let planes = Planes::new(w, self.block());
        let [rows, columns] = planes.block;
        let blocks = [w.output[0].div_ceil(rows), w.output[1].div_ceil(columns)];
        let (threads, panels) = (rayon::current_num_threads(), mg.div_ceil(height));
        let outer = p.n * p.groups * blocks[0] * blocks[1];
        // With few blocks of pixels, threads share the output channels of each.
        let parts = if outer >= threads { 1 } else { threads.div_ceil(outer).min(panels) };
        let places = planes.offsets(units, |tap| self.numbers.begins(tap));
        let straight: Vec<u32> = if w.pointwise() { (0..units).map(|c| (c * w.plane()) as u32).collect() } else { Vec::new() };
        let out = Disjoint::new(out);
        let one = |t: usize| {
            let (part, t) = (t % parts, t / parts);
            let (block, t) = (t % (blocks[0] * blocks[1]), t / (blocks[0] * blocks[1]));
            let (group, image) = (t % p.groups, t / p.groups);
            let first = [block / blocks[1] * rows, block % blocks[1] * columns];
            let size = [rows.min(w.output[0] - first[0]), columns.min(w.output[1] - first[1])];
            let pixels = planes.pixels(size[0], size[1]).next_multiple_of(tile_columns);
            let own = (image * p.c + group * cg) * w.plane();
            let panels = part * panels / parts..(part + 1) * panels / parts;
            let part = Part { image, group, first, size, panels };
            // Pixels that are read where they lie may be read beyond the last one, but not beyond the image.
            let lies = if w.pointwise() { self.numbers.in_place(own + first[1]) } else { None };
            let lies = lies.filter(|x| x.len() >= ((units - 1) * w.plane() + pixels) * unit_bytes);
            let input = if lies.is_some() { 0 } else { planes.channel() * units * unit_bytes };
            let [beyond, whole] = self.numbers.spare();
            let more = (planes.channel() * beyond + tile_columns) * unit_bytes;
            let room = (input + more.max(64)).next_multiple_of(64);
            let rows = height.min(mg).next_multiple_of(whole);
            with_buffer(&BLOCK, room + pixels * rows * size_of::<N::Sum>(), |buffer| {
                let (b, sums) = buffer.split_at_mut(room);
                let (b, places, width) = match lies {
                    Some(x) => (x, &straight, size[1]),
                    None => {
                        self.numbers.fill(&planes, own, first, size, &mut b[..input]);
                        (&*b, &places, planes.width())
                    }
                };
                Task { dense: self, part, b, places, width, out: &out }.run(bytemuck::cast_slice_mut(sums), finish);
            });
        };
        let tasks = outer * parts;
        let least = (TASK_FLOPS * tasks as f64 / p.flops()) as usize;
        share::each(tasks, if p.flops() > TASK_FLOPS { least.min(tasks.div_ceil(threads)) } else { tasks }, one);
    }
}

impl<N: Numbers, O: Copy> Task<'_, N, O> {
    fn run(&self, sums: &mut [N::Sum], finish: &Finish<N::Sum, O>) {
        let (numbers, part) = (self.dense.numbers, &self.part);
        let [tile_rows, tile_columns] = numbers.tile();
        let mg = self.dense.p.m / self.dense.p.groups;
        let pixels = ((part.size[0] - 1) * self.width + part.size[1]).next_multiple_of(tile_columns);
        for (first, height) in heights(mg, tile_rows).skip(part.panels.start).take(part.panels.len()) {
            let channel = part.group * mg + first;
            numbers.sums(&Panel { channel, height, b: self.b, places: self.places, pixels }, sums);
            for (channel, sums) in (channel..).zip(sums.chunks_exact_mut(pixels).take(height)) {
                self.compact(sums);
                self.pieces(channel, |pixel, at, out| {
                    finish(Place { image: part.image, channel, pixel }, &mut sums[at..at + out.len()], out);
                });
            }
        }
    }

    /// The output of a channel, the rows of this task's block.
    #[allow(clippy::mut_from_ref)]
    fn row(&self, channel: usize, row: usize, rows: usize) -> &mut [O] {
        let (p, w) = (self.dense.p, &self.dense.window);
        let at = (self.part.image * p.m + channel) * w.pixels() + (self.part.first[0] + row) * w.output[1] + self.part.first[1];
        // SAFETY: each (image, channel, pixel) belongs to one task (several rows only when the block is as wide as the output),
        // and is used for one piece at a time.
        unsafe { self.out.part(at, (rows - 1) * w.output[1] + self.part.size[1]) }
    }

    /// Hands out the output of a channel in contiguous pieces, each with the sums' place: `each(pixel, place, out)`.
    fn pieces(&self, channel: usize, mut each: impl FnMut(usize, usize, &mut [O])) {
        let width = self.dense.window.output[1];
        let pixel = self.part.first[0] * width + self.part.first[1];
        if self.part.size[1] == width {
            return each(pixel, 0, self.row(channel, 0, self.part.size[0]));
        }
        for r in 0..self.part.size[0] {
            each(pixel + r * width, r * self.part.size[1], self.row(channel, r, 1));
        }
    }

    /// Moves a row's sums together, over the columns left out.
    fn compact(&self, sums: &mut [N::Sum]) {
        if self.width > self.part.size[1] {
            for r in 1..self.part.size[0] {
                sums.copy_within(r * self.width..r * self.width + self.part.size[1], r * self.part.size[1]);
            }
        }
    }
}
