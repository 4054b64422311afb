//! Where the pixels of a convolution read from.

use crate::base::TensorView;
use crate::device::cpu::gemm::blocks::wide;
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

    /// Writes the input elements of the line that begins at `line`, from its column `start` on in steps of the stride; zeros
    /// where there are none.
    pub fn line(&self, x: &impl Pixels, line: usize, start: i64, row: &mut [f32]) {
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
        let source = &self[from..];
        match step {
            1 => into.copy_from_slice(&source[..into.len()]),
            // In a form that becomes vector code; the last element may have no neighbour.
            2 => {
                let (pairs, rest) = source.as_chunks::<2>();
                wide(|| into.iter_mut().zip(pairs).for_each(|(o, pair)| *o = pair[0]));
                if let (Some(last), [v]) = (into.get_mut(pairs.len()), rest) {
                    *last = *v;
                }
            }
            _ => into.iter_mut().zip(source.iter().step_by(step)).for_each(|(o, v)| *o = *v),
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
