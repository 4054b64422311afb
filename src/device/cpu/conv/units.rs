//! What the tiles of integer convolutions multiply at once, and their weights laid out for it.

use std::ops::Range;

use super::window::Window2d;
use crate::device::cpu::gemm::blocks::present;
use crate::device::cpu::gemm::bytes::Isa;
use crate::device::cpu::gemm::tile::{DotTile, MATRIX, MatrixTile, Overlapping, Tiles};
use crate::graph::problem::ConvProblem;

/// Steps of a register that holds a matrix, in steps of a row of a vector tile.
const MATRIX_STEPS: usize = 64;

/// Pieces of the units of a pixel that registers of matrices take.
#[derive(Clone, Copy)]
pub(super) struct Pieces {
    /// Multiplies them.
    pub tile: MatrixTile,
    /// Of one tap.
    pub count: usize,
    /// Units of each; those of the last that there are not have weights of zero.
    pub units: usize,
}

/// What units are made of.
#[derive(Clone, Copy)]
pub(super) struct Units {
    group: usize,
    /// Input channels and taps of one output channel.
    pub channels: usize,
    pub taps: [usize; 2],
    /// Whether units hold taps of one channel, neighbours in a row of the window; else channels of one tap.
    pub across: bool,
}

impl Units {
    pub fn new(isa: &Isa, p: &ConvProblem) -> Units {
        let (group, channels, taps) = (isa.group, p.c / p.groups, Window2d::new(&p.window).kernel);
        let across = channels * taps[1].div_ceil(group) < channels.div_ceil(group) * taps[1];
        Units { group, channels, taps, across }
    }

    /// Of one pixel.
    pub fn count(&self) -> usize {
        if self.across { self.channels } else { self.channels.div_ceil(self.group) }
    }

    /// Tiles that read these units from lines of bytes, if they are of taps and the instruction set has them: each byte is then laid
    /// out once. The weights are the same.
    pub fn overlapping(&self, isa: &Isa, p: &ConvProblem, window: &Window2d) -> Option<Tiles<DotTile<Overlapping>>> {
        let (needs, tiles) = isa.overlapping?;
        let neighbours = self.across && window.strides[1] == 1 && window.dilations[1] == 1;
        (neighbours && p.m == p.groups && present(needs)).then_some(tiles)
    }

    /// How registers that hold matrices take these units, where they are faster than vectors: where units and rows fill them.
    pub fn pieces(&self, isa: &Isa, p: &ConvProblem) -> Option<Pieces> {
        let (tiles, units, rows) = (isa.matrix?, self.count(), (p.m / p.groups).min(2 * MATRIX[0]));
        let count = units.div_ceil(MATRIX[1] / self.group);
        (MATRIX_STEPS * count < rows * units).then(|| Pieces { tile: tiles.listed, count, units: units.div_ceil(count) })
    }

    /// Taps of a line of the window in units.
    fn wide(&self) -> usize {
        if self.across { self.taps[1].div_ceil(self.group) } else { self.taps[1] }
    }

    /// Taps of the window in units.
    pub fn places(&self) -> usize {
        self.taps[0] * self.wide()
    }

    /// The window in units: taps that share one count as one.
    pub fn window(&self, mut window: Window2d) -> Window2d {
        if self.across {
            window.kernel[1] = self.wide();
            window.dilations[1] *= self.group;
        }
        window
    }

    /// The channel that element `i` of a unit is of, and how many taps it is away, if it is any.
    pub fn element(&self, unit: usize, i: usize) -> Option<(usize, usize)> {
        let (channel, tap) = if self.across { (unit, i) } else { (unit * self.group + i, 0) };
        (channel < self.channels).then_some((channel, tap))
    }

    /// The weight, among those of one output channel, of element `i` of a unit at a tap of the window in units.
    pub fn weight(&self, unit: usize, tap: usize, i: usize) -> Option<usize> {
        let (channel, more) = self.element(unit, i)?;
        let wide = self.wide();
        let x = tap % wide * if self.across { self.group } else { 1 } + more;
        (x < self.taps[1]).then(|| (channel * self.taps[0] + tap / wide) * self.taps[1] + x)
    }

    /// Weights `w(row, weight)` of some rows as tiles read them, `[tap of each unit][row][element]`; zeros where there are none.
    pub fn lay(&self, isa: &Isa, rows: impl Iterator<Item = usize> + Clone, out: &mut Vec<u8>, w: impl Fn(usize, usize) -> i8) {
        let taps = self.places();
        for (unit, tap) in (0..self.count()).flat_map(|unit| (0..taps).map(move |tap| (unit, tap))) {
            for (row, i) in rows.clone().flat_map(|row| (0..self.group).map(move |i| (row, i))) {
                let value = self.weight(unit, tap, i).map_or(0, |at| w(row, at));
                match isa.a_bytes {
                    2 => out.extend(i16::from(value).to_ne_bytes()),
                    _ => out.push(value as u8),
                }
            }
        }
    }

    /// Weights of some rows as registers of matrices read them, `[row][piece][tap][unit][element]`.
    pub fn lay_matrices(&self, pieces: &Pieces, rows: Range<usize>, w: impl Fn(usize, usize) -> i8) -> Vec<u8> {
        let ([_, bytes], taps) = (MATRIX, self.places());
        let places = || (0..pieces.count).flat_map(|piece| (0..taps).map(move |tap| (piece, tap)));
        // Whole registers are read.
        let mut out = vec![0; (rows.len() + 2 * MATRIX[0]) * pieces.count * taps * bytes];
        let mut to = out.chunks_exact_mut(bytes);
        for (row, (piece, tap)) in rows.flat_map(|row| places().map(move |place| (row, place))) {
            let Some(to) = to.next() else { break };
            for (at, to) in to.iter_mut().enumerate().take(pieces.units * self.group) {
                let unit = piece * pieces.units + at / self.group;
                *to = self.weight(unit, tap, at % self.group).map_or(0, |at| w(row, at) as u8);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_weight_is_in_one_unit_once() {
        for group in [1, 2, 4, 8] {
            for (channels, taps) in [(1, [3, 3]), (1, [1, 1]), (3, [7, 7]), (5, [1, 3]), (16, [3, 3]), (2, [2, 9])] {
                for across in [false, true] {
                    let units = Units { group, channels, taps, across };
                    let places = taps[0] * if across { taps[1].div_ceil(group) } else { taps[1] };
                    let all = (0..units.count()).flat_map(|u| (0..places * group).map(move |i| (u, i / group, i % group)));
                    let mut found: Vec<usize> = all.filter_map(|(u, tap, i)| units.weight(u, tap, i)).collect();
                    found.sort_unstable();
                    assert!(found.into_iter().eq(0..channels * taps[0] * taps[1]), "{channels} channels, {taps:?}, by {group}");
                }
            }
        }
    }
}
