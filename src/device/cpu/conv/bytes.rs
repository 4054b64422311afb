//! Exact convolutions of 8-bit integers on the byte tiles. A unit holds as many elements of one pixel as an instruction multiplies
//! and adds up: channels or, of few channels, taps that lie side by side. Weights are the tiles' A. Depthwise, a pixel and those after
//! it become a unit in registers, where the instruction set can.
//!
//! Both are moved by 128 where the tiles take the other sign: `x' = x +- 128`, `w' = w - 128`, and zero points with them. With
//! K products, `sum (x - zx)(w - zw) = sum x'w' - zx' sum w' - zw' sum x' + K zx' zw'`, modulo 2^32 and so exact whenever the result
//! fits i32. Sums of weights are constants; those of pixels, where a zero point of weights is not 0, are a row of ones.

use std::ops::Range;

use smallvec::SmallVec;

use super::dense::{Dense, Numbers, Panel, Place};
use super::finish::{Epilogue, Quant, error, input};
use super::planes::Planes;
use super::units::{Pieces, Units};
use super::window::Window2d;
use crate::base::{DType, Tensor};
use crate::device::cpu::call::{Call, CpuCode, Packed, Packing};
use crate::device::cpu::gemm::blocks::{heights, wide};
use crate::device::cpu::gemm::bytes::Isa;
use crate::device::cpu::gemm::tile::{DotTile, List, MATRIX, Matrices, OVERLAP_BYTES, Overlapping, Places, Tiles};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;

/// Pixels summed together, at least the columns of the widest tile.
const BAND: usize = 128;

fn panels(isa: &Isa, p: &ConvProblem, w: &[u8]) -> (Vec<u8>, Vec<i32>) {
    let flip = if p.w == DType::U8 { 0x80 } else { 0 };
    let (mg, units) = (p.m / p.groups, Units::new(isa, p));
    let k = units.channels * units.taps[0] * units.taps[1];
    let weight = |m: usize, at: usize| (w[m * k + at] ^ flip) as i8;
    let sums = (0..p.m).map(|m| (0..k).map(|at| i32::from(weight(m, at))).sum()).collect();
    if let Some(pieces) = units.pieces(isa, p) {
        return (units.lay_matrices(&pieces, 0..p.m, weight), sums);
    }
    let mut packed = Vec::new();
    for g in 0..p.groups {
        for (first, height) in heights(mg, isa.listed.rows()) {
            let first = g * mg + first;
            units.lay(isa, first..first + height, &mut packed, weight);
        }
    }
    (packed, sums)
}

/// The kernel on one instruction set.
pub(super) struct On(pub &'static Isa);

impl CpuCode for On {
    /// Weights as panels of rows, and the sum of each row.
    fn pack(&self, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
        let Problem::Conv(p) = problem else { return Ok(None) };
        let Some(Some(w)) = constants.get(p.w_at) else { return Ok(None) };
        let (panels, sums) = panels(self.0, p, w.bytes());
        Ok(Some((Packed { parts: vec![Tensor::vector(&panels), Tensor::vector(&sums)] }, vec![p.w_at])))
    }

    fn run(&self, call: &mut Call) -> Result<()> {
        let isa = self.0;
        let Problem::Conv(p) = call.problem else { return Err(error("the problem is of another family")) };
        let quant = Quant::new(p, call)?.ok_or_else(|| error("takes 8-bit integers only"))?;
        let x = input(call.inputs, p.x_at)?;
        let bias = p.b_at.map(|i| input(call.inputs, i)).transpose()?.map(|b| b.slice::<i32>());
        let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
        let made;
        let (weights, sums): (&[u8], &[i32]) = match call.packed {
            Some(packed) => (packed.parts[0].bytes(), bytemuck::cast_slice(packed.parts[1].bytes())),
            None => {
                made = panels(isa, p, input(call.inputs, p.w_at)?.bytes);
                (&made.0, &made.1)
            }
        };
        let moved = (p.x == DType::I8) == isa.unsigned_b;
        let x_zero = quant.x_zero + if moved { if isa.unsigned_b { 128 } else { -128 } } else { 0 };
        let w_zero = |m: usize| quant.w_zero_of(m) - if p.w == DType::U8 { 128 } else { 0 };
        let (units, window) = (Units::new(isa, p), Window2d::new(&p.window));
        let k = (units.channels * window.taps()) as i32;
        let constant = |m: usize| {
            let correction = k.wrapping_mul(w_zero(m)).wrapping_sub(sums[m]).wrapping_mul(x_zero);
            bias.map_or(0, |b| b[m]).wrapping_add(correction)
        };
        let mut zeros = None;
        if (0..p.m).any(|m| w_zero(m) != 0) {
            let mut ones = Vec::new();
            units.lay(isa, 0..1, &mut ones, |_, _| 1);
            zeros = Some(Zeros { ones, each: (0..p.m).map(w_zero).collect() });
        }
        let flip = if moved { 0x80 } else { 0 };
        let overlapping = units.overlapping(isa, p, &window);
        let pieces = units.pieces(isa, p);
        let numbers =
            Bytes { isa, units, window, overlapping, pieces, x: x.bytes, zero: quant.x_zero as u8, flip, weights, zeros };
        let window = if overlapping.is_some() { window } else { units.window(window) };
        let dense = Dense { p, window, numbers: &numbers };
        if let Some(epilogue) = Epilogue::new(p, call.inputs)? {
            // Pieces are cut by elements.
            match epilogue.size() {
                1 => dense
                    .run(out.bytes, &|place, sums, out: &mut [u8]| epilogue.integers(&place, sums, constant(place.channel), out)),
                _ => dense.run(out.slice::<f32>(), &|place, sums, out: &mut [f32]| {
                    epilogue.integers(&place, sums, constant(place.channel), bytemuck::cast_slice_mut(out))
                }),
            }
            return Ok(());
        }
        match p.y {
            DType::I32 => dense.run(out.slice::<i32>(), &|place: Place, sums: &mut [i32], out: &mut [i32]| {
                let add = constant(place.channel);
                wide(|| out.iter_mut().zip(sums).for_each(|(o, s)| *o = s.wrapping_add(add)));
            }),
            y => dense.run(out.bytes, &|place: Place, sums: &mut [i32], out: &mut [u8]| {
                quant.bytes(place.channel, sums, constant(place.channel), y, out);
            }),
        }
        Ok(())
    }
}

struct Bytes<'a> {
    isa: &'a Isa,
    units: Units,
    /// In taps.
    window: Window2d,
    /// Units overlap: what is laid out is bytes.
    overlapping: Option<Tiles<DotTile<Overlapping>>>,
    /// Registers that hold matrices multiply.
    pieces: Option<Pieces>,
    x: &'a [u8],
    /// The zero point, which padding is made of, and what turns stored elements into the tiles'.
    zero: u8,
    flip: u8,
    weights: &'a [u8],
    zeros: Option<Zeros>,
}

/// Zero points of the weights, one for each output channel, and the row of ones that sums pixels.
struct Zeros {
    ones: Vec<u8>,
    each: Vec<i32>,
}

impl Numbers for Bytes<'_> {
    type Sum = i32;

    fn tile(&self) -> [usize; 2] {
        [self.pieces.map_or(self.isa.listed.rows(), |_| 2 * MATRIX[0]), self.isa.columns]
    }

    fn spare(&self) -> [usize; 2] {
        self.pieces.map_or([0, 1], |pieces| [pieces.count * pieces.units - self.units.count(), MATRIX[0]])
    }

    fn units(&self) -> [usize; 2] {
        [self.units.count(), if self.overlapping.is_some() { 1 } else { self.isa.group }]
    }

    fn begins(&self, tap: usize) -> bool {
        self.overlapping.is_none() || (tap % self.window.kernel[1]).is_multiple_of(self.isa.group)
    }

    fn fill(&self, planes: &Planes, at: usize, first: [usize; 2], size: [usize; 2], out: &mut [u8]) {
        let (w, group) = (&self.window, self.isa.group);
        if self.overlapping.is_some() {
            return planes.fill(first, size, 1, out, |channel, iy, start, row| {
                let Some(iy) = iy else { return row.fill(self.zero ^ self.flip) };
                w.line(&self.x[at + channel * w.plane() + iy * w.input[1]..][..w.input[1]], start, row, self.zero);
                if self.flip != 0 {
                    wide(|| row.iter_mut().for_each(|v| *v ^= self.flip));
                }
            });
        }
        let step = w.dilations[1];
        let mut lines = vec![0; group * (planes.width() + step)];
        planes.fill(first, size, group, out, |unit, iy, start, row| {
            let Some(iy) = iy else { return row.fill(self.zero ^ self.flip) };
            let n = row.len() / group;
            let line = |channel: usize| &self.x[at + channel * w.plane() + iy * w.input[1]..][..w.input[1]];
            // Elements that are none meet weights of zero.
            let element = |i: usize| self.units.element(unit, i).unwrap_or((0, 0));
            if self.units.across && w.strides[1] == 1 {
                let lines = &mut lines[..n + (group - 1) * step];
                w.line(line(unit), start, lines, self.zero);
                return interleave(group, |i| &lines[i * step..][..n], self.flip, row);
            }
            if let Some(inside) = w.inside(start, n).filter(|_| !self.units.across) {
                return interleave(group, |i| &line(element(i).0)[inside.clone()], self.flip, row);
            }
            let lines = &mut lines[..row.len()];
            for (i, to) in lines.chunks_exact_mut(n).enumerate() {
                let (channel, tap) = element(i);
                w.line(line(channel), start + (tap * step) as i64, to, self.zero);
            }
            interleave(group, |i| &lines[i * n..][..n], self.flip, row);
        });
    }

    fn sums(&self, panel: &Panel, sums: &mut [i32]) {
        let places = List { rows: panel.places.as_ptr(), panel: self.isa.columns };
        match &self.overlapping {
            Some(tiles) => self.sums_by(tiles, Overlapping(places), panel, sums),
            None => self.sums_by(&self.isa.listed, places, panel, sums),
        }
    }
}

impl Bytes<'_> {
    /// Sums of a row panel in registers that hold matrices.
    fn matrices(&self, pieces: &Pieces, panel: &Panel, sums: &mut [i32]) {
        let (taps, unit, whole) = (self.units.places(), self.isa.group, panel.height.next_multiple_of(MATRIX[0]));
        let row = panel.places.get(taps).map_or(0, |&second| (second - panel.places[0]) as usize * unit);
        let firsts = panel.places.chunks_exact(taps * pieces.units).map(|of| &of[..taps]);
        let rest = panel.places.chunks_exact(taps * pieces.units).remainder();
        let last = if rest.is_empty() { rest } else { &rest[..taps] };
        let places: SmallVec<[u32; 32]> = firsts.flatten().chain(last).map(|&place| place * unit as u32).collect();
        let a_row = places.len() * MATRIX[1];
        let a = &self.weights[panel.channel * a_row..][..whole * a_row];
        let beyond = self.spare()[0] * row;
        assert!(panel.b.len() >= panel.reach() * unit + beyond, "invariant: tiles lie in the block");
        assert!(sums.len() >= whole * panel.pixels && panel.pixels.is_multiple_of(self.isa.columns), "invariant: sums have room");
        assert!(places.len() == pieces.count * taps && panel.height <= 2 * MATRIX[0], "invariant: weights as laid out");
        let (groups, start) = (pieces.units, [0; 32]);
        let panels = panel.pixels / self.isa.columns;
        let columns = self.isa.columns * unit;
        let matrices = Matrices {
            height: panel.height,
            pieces: &places,
            groups,
            row,
            panel: columns,
            panels,
            start_step: 0,
            c_step: panel.pixels,
        };
        // SAFETY: A, B with the units beyond its last, the start and the sums are bounded above; the chooser checked the instruction set.
        unsafe { (pieces.tile)(&matrices, a.as_ptr(), panel.b.as_ptr(), start.as_ptr(), sums.as_mut_ptr()) }
    }

    fn sums_by<P: Places>(&self, tiles: &Tiles<DotTile<P>>, places: P, panel: &Panel, sums: &mut [i32]) {
        let (isa, k, pixels) = (self.isa, panel.places.len(), panel.pixels);
        let (step, more) = if P::OVERLAPPING { (1, OVERLAP_BYTES) } else { (isa.group, 0) };
        assert!(panel.b.len() >= panel.reach() * step + more, "invariant: tiles lie in the block");
        assert!(sums.len() >= panel.height * pixels && BAND.is_multiple_of(isa.columns), "invariant: sums have room");
        let start = [0; BAND];
        let tiles = |height: usize, a: &[u8], pixels: Range<usize>, c: &mut [i32], c_step: usize| {
            for (first, tile) in tiles.over(height, pixels.start / isa.columns..pixels.end / isa.columns) {
                let at = first * isa.columns;
                let (b, c) = (panel.b[at * step..].as_ptr().cast(), c[at - pixels.start..].as_mut_ptr());
                // SAFETY: A has k x height units, each row of B and C the tile's columns from `at` on (asserted); the chooser
                // checked the instruction set, `Units::overlapping` what its tiles need besides.
                unsafe { tile(k, a.as_ptr(), b, places, start.as_ptr(), c, c_step) };
            }
        };
        let bands = || (0..pixels).step_by(BAND).map(|at| at..(at + BAND).min(pixels));
        match &self.pieces {
            Some(pieces) => self.matrices(pieces, panel, sums),
            None => {
                let row = k * isa.group * isa.a_bytes;
                let a = &self.weights[panel.channel * row..][..panel.height * row];
                bands().for_each(|band| tiles(panel.height, a, band.clone(), &mut sums[band.start..], pixels));
            }
        }
        let Some(zeros) = &self.zeros else { return };
        for band in bands() {
            let mut totals = [0; BAND];
            tiles(1, &zeros.ones, band.clone(), &mut totals, BAND);
            for (line, &zero) in sums.chunks_exact_mut(pixels).zip(&zeros.each[panel.channel..][..panel.height]) {
                let line = line[band.clone()].iter_mut().zip(&totals);
                line.for_each(|(s, t)| *s = s.wrapping_sub(zero.wrapping_mul(*t)));
            }
        }
    }
}

/// Lines side by side, the elements of each pixel together, with some bits flipped. In words of a pixel each, which becomes vector
/// code.
fn interleave<'a>(group: usize, line: impl Fn(usize) -> &'a [u8], flip: u8, row: &mut [u8]) {
    wide(|| match group {
        1 => row.iter_mut().zip(line(0)).for_each(|(to, v)| *to = v ^ flip),
        2 => {
            let pixels = row.as_chunks_mut::<2>().0.iter_mut().zip(line(0)).zip(line(1));
            pixels.for_each(|((to, a), b)| *to = u16::from_le_bytes([a ^ flip, b ^ flip]).to_le_bytes());
        }
        4 => {
            let flip = u32::from_ne_bytes([flip; 4]);
            let pixels = row.as_chunks_mut::<4>().0.iter_mut().zip(line(0)).zip(line(1)).zip(line(2)).zip(line(3));
            for ((((to, a), b), c), d) in pixels {
                let word = u32::from(*a) | u32::from(*b) << 8 | u32::from(*c) << 16 | u32::from(*d) << 24;
                *to = (word ^ flip).to_le_bytes();
            }
        }
        _ => {
            let lines: [&[u8]; 8] = std::array::from_fn(line);
            for (j, to) in row.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *to = lines.map(|line| line[j] ^ flip);
            }
        }
    });
}
