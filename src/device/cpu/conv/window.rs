//! Where the pixels of a convolution read from.

use std::ops::Range;

use crate::device::cpu::gemm::blocks::wide;
use crate::graph::problem::Window;

/// A two-dimensional window; one-dimensional ones have a height of 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window2d {
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    pub pads: [i64; 2],
}

impl Window2d {
    /// Of one or two spatial axes. A 1x1 window without steps or pads is one row of all pixels.
    pub fn new(w: &Window) -> Window2d {
        let pair = |v: &[usize]| if v.len() == 2 { [v[0], v[1]] } else { [1, v[0]] };
        let mut w = Window2d {
            input: pair(&w.input),
            output: pair(&w.output),
            kernel: pair(&w.kernel),
            strides: pair(&w.strides),
            dilations: pair(&w.dilations),
            pads: if w.pads.len() == 2 { [w.pads[0], w.pads[1]] } else { [0, w.pads[0]] },
        };
        if w.pointwise() {
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

    /// Whether output pixels are input pixels: one tap, no steps, no padding.
    pub fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0, 0] && self.input == self.output
    }

    /// Where `n` elements of an input line lie from its column `start` on, if there are as many and no steps.
    pub fn inside(&self, start: i64, n: usize) -> Option<Range<usize>> {
        let start = usize::try_from(start).ok().filter(|s| self.strides[1] == 1 && s + n <= self.input[1])?;
        Some(start..start + n)
    }

    /// Writes the elements of an input line from its column `start` on in steps of the stride; `pad` where there are none.
    pub fn line<T: Copy>(&self, line: &[T], start: i64, row: &mut [T], pad: T) {
        let (step, width) = (self.strides[1] as i64, self.input[1] as i64);
        // Pixels before `lo` and from `hi` on read padding.
        let lo = if start < 0 { (-start + step - 1) / step } else { 0 }.min(row.len() as i64) as usize;
        let hi = if start < width { (width - start + step - 1) / step } else { 0 }.clamp(lo as i64, row.len() as i64) as usize;
        row[..lo].fill(pad);
        row[hi..].fill(pad);
        if lo < hi {
            let (from, into) = (&line[(start + lo as i64 * step) as usize..], &mut row[lo..hi]);
            match step {
                1 => into.copy_from_slice(&from[..hi - lo]),
                // In a form that becomes vector code; the last element may have no neighbour.
                2 => {
                    let (pairs, rest) = from.as_chunks::<2>();
                    wide(|| into.iter_mut().zip(pairs).for_each(|(o, pair)| *o = pair[0]));
                    if let (Some(last), [v]) = (into.get_mut(pairs.len()), rest) {
                        *last = *v;
                    }
                }
                _ => into.iter_mut().zip(from.iter().step_by(step as usize)).for_each(|(o, v)| *o = *v),
            }
        }
    }
}
