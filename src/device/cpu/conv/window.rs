//! Where the pixels of a convolution read from.

use crate::base::TensorView;
use crate::graph::problem::ConvProblem;

/// A two-dimensional window; one-dimensional ones have a height of 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    pub pads: [i64; 2],
}

impl Window {
    /// Of a problem of one or two spatial axes. A 1x1 window without steps or pads is one row of all pixels.
    pub fn new(p: &ConvProblem) -> Window {
        let pair = |v: &[usize], fill: usize| if v.len() == 2 { [v[0], v[1]] } else { [fill, v[0]] };
        let pads = if p.pads.len() == 2 { [p.pads[0], p.pads[1]] } else { [0, p.pads[0]] };
        let mut w = Window {
            input: pair(&p.input, 1),
            output: pair(&p.output, 1),
            kernel: pair(&p.kernel, 1),
            strides: pair(&p.strides, 1),
            dilations: pair(&p.dilations, 1),
            pads,
        };
        if w.kernel == [1, 1] && w.strides == [1, 1] && w.pads == [0, 0] && w.input == w.output {
            w.input = [1, w.input[0] * w.input[1]];
            w.output = w.input;
        }
        w
    }

    /// Pixels of one output plane.
    pub fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements of one input plane.
    pub fn plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Writes `b[k][nr]` for pixels from `first` on: row `k` = (channel, tap), zero outside the image and past the last pixel.
    /// `x` reads input elements of one group of channels.
    pub fn pack(&self, x: &impl Pixels, channels: usize, first: usize, nr: usize, b: &mut [f32]) {
        let last = (first + nr).min(self.pixels());
        let width = self.output[1];
        let mut p = first;
        let mut short = last < first + nr;
        while p < last {
            let (oy, ox) = (p / width, p % width);
            let n = (width - ox).min(last - p);
            self.segment(x, channels, oy, ox, n, p - first, nr, b);
            p += n;
        }
        if std::mem::take(&mut short) {
            b.chunks_exact_mut(nr).for_each(|row| row[last - first..].fill(0.0));
        }
    }

    /// `n` pixels of one output row, at column `at` of the panel.
    #[allow(clippy::too_many_arguments)]
    fn segment(&self, x: &impl Pixels, channels: usize, oy: usize, ox: usize, n: usize, at: usize, nr: usize, b: &mut [f32]) {
        let mut rows = b.chunks_exact_mut(nr);
        for c in 0..channels {
            for ky in 0..self.kernel[0] {
                let iy = (oy * self.strides[0] + ky * self.dilations[0]) as i64 - self.pads[0];
                for kx in 0..self.kernel[1] {
                    let Some(row) = rows.next() else { return };
                    let row = &mut row[at..at + n];
                    if iy < 0 || iy >= self.input[0] as i64 {
                        row.fill(0.0);
                        continue;
                    }
                    let start = (ox * self.strides[1] + kx * self.dilations[1]) as i64 - self.pads[1];
                    let line = c * self.plane() + iy as usize * self.input[1];
                    self.line(x, line, start, row);
                }
            }
        }
    }

    fn line(&self, x: &impl Pixels, line: usize, start: i64, row: &mut [f32]) {
        let (step, width) = (self.strides[1] as i64, self.input[1] as i64);
        // Pixels before `lo` and from `hi` on read padding.
        let lo = if start < 0 { (-start + step - 1) / step } else { 0 }.min(row.len() as i64) as usize;
        let hi = if start < width { (width - start + step - 1) / step } else { 0 }.clamp(lo as i64, row.len() as i64) as usize;
        row[..lo].fill(0.0);
        row[hi..].fill(0.0);
        if lo < hi {
            let from = line + (start + lo as i64 * step) as usize;
            x.copy(from, self.strides[1], &mut row[lo..hi]);
        }
    }
}

/// Reads runs of input elements as f32.
pub(super) trait Pixels {
    /// Every `step`-th element from `from` on.
    fn copy(&self, from: usize, step: usize, into: &mut [f32]);
}

impl Pixels for &[f32] {
    #[inline]
    fn copy(&self, from: usize, step: usize, into: &mut [f32]) {
        if step == 1 {
            into.copy_from_slice(&self[from..from + into.len()]);
        } else {
            for (o, v) in into.iter_mut().zip(self[from..].iter().step_by(step)) {
                *o = *v;
            }
        }
    }
}

/// 8-bit elements less their zero point.
pub(super) struct Bytes<'a> {
    pub bytes: &'a [u8],
    pub signed: bool,
    pub zero: i32,
}

impl<'a> Bytes<'a> {
    /// Of a u8 or i8 tensor.
    pub fn new(view: &TensorView<'a>, zero: i32) -> Self {
        Bytes { bytes: view.bytes, signed: view.dtype == crate::base::DType::I8, zero }
    }
}

impl Pixels for Bytes<'_> {
    #[inline]
    fn copy(&self, from: usize, step: usize, into: &mut [f32]) {
        let source = self.bytes[from..].iter().step_by(step);
        if self.signed {
            into.iter_mut().zip(source).for_each(|(o, &v)| *o = (i32::from(v as i8) - self.zero) as f32);
        } else {
            into.iter_mut().zip(source).for_each(|(o, &v)| *o = (i32::from(v) - self.zero) as f32);
        }
    }
}
