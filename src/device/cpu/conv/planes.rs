//! The part of an image that a block of output pixels reads, laid out so that the pixels of a tap lie one after the other.
//!
//! Rows and columns are padded and split by their residue modulo the stride, `[unit][row phase][column phase][row][column]`.
//! Output pixel `(y, x)` of the block reads tap `t` at `offset(t) + y * width + x`: all pixels of the block are one long row, in
//! which the columns beyond the block's are computed and left out.

use super::window::Window2d;

/// How one block of output pixels is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes {
    window: Window2d,
    /// Output rows and columns of a whole block.
    pub block: [usize; 2],
    /// Rows and columns of a plane.
    size: [usize; 2],
    /// Residues that are read.
    phases: [usize; 2],
}

impl Planes {
    /// For blocks of at most `block` output rows and columns.
    pub fn new(window: Window2d, block: [usize; 2]) -> Self {
        let reach = |a: usize| (window.kernel[a] - 1) * window.dilations[a];
        let size = |a: usize| block[a] + reach(a) / window.strides[a];
        let phases = |a: usize| window.strides[a].min(reach(a) + 1);
        Planes { window, block, size: [size(0), size(1)], phases: [phases(0), phases(1)] }
    }

    /// Units from row to row.
    pub fn width(&self) -> usize {
        self.size[1]
    }

    /// Units of one channel, or of one group of channels that share units.
    pub fn channel(&self) -> usize {
        self.size[0] * self.size[1] * self.phases[0] * self.phases[1]
    }

    /// The pixels of a block of `rows` rows as one row, the columns left out included.
    pub fn pixels(&self, rows: usize, columns: usize) -> usize {
        if rows == 0 { 0 } else { (rows - 1) * self.width() + columns }
    }

    /// Where each channel's taps begin, those that are `wanted`.
    pub fn offsets(&self, channels: usize, wanted: impl Fn(usize) -> bool) -> Vec<u32> {
        let w = &self.window;
        let phase = |shift: usize, a: usize| (shift % w.strides[a], shift / w.strides[a]);
        let tap = |t: usize| {
            let (py, y) = phase(t / w.kernel[1] * w.dilations[0], 0);
            let (px, x) = phase(t % w.kernel[1] * w.dilations[1], 1);
            ((py * self.phases[1] + px) * self.size[0] + y) * self.size[1] + x
        };
        let taps: Vec<usize> = (0..w.taps()).filter(|&t| wanted(t)).map(tap).collect();
        (0..channels).flat_map(|c| taps.iter().map(move |t| (c * self.channel() + t) as u32)).collect()
    }

    /// Lays out what the block of `rows` by `columns` output pixels from `first` on reads, in units of `unit_bytes`:
    /// `line(unit, input row, first input column, into)` writes each row; the input row is none in the padding.
    pub fn fill(
        &self,
        first: [usize; 2],
        [rows, columns]: [usize; 2],
        unit_bytes: usize,
        out: &mut [u8],
        mut line: impl FnMut(usize, Option<usize>, i64, &mut [u8]),
    ) {
        let w = &self.window;
        let used = [rows + self.size[0] - self.block[0], columns + self.size[1] - self.block[1]];
        for (unit, out) in out.chunks_exact_mut(self.channel() * unit_bytes).enumerate() {
            for (phase, plane) in out.chunks_exact_mut(self.size[0] * self.size[1] * unit_bytes).enumerate() {
                let (py, px) = (phase / self.phases[1], phase % self.phases[1]);
                let start = (first[1] * w.strides[1] + px) as i64 - w.pads[1];
                for (r, row) in plane.chunks_exact_mut(self.size[1] * unit_bytes).take(used[0]).enumerate() {
                    let iy = ((first[0] + r) * w.strides[0] + py) as i64 - w.pads[0];
                    let iy = usize::try_from(iy).ok().filter(|&iy| iy < w.input[0]);
                    line(unit, iy, start, &mut row[..used[1] * unit_bytes]);
                }
            }
        }
    }
}
