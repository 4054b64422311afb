//! Convolutions of a few output pixels: pixels are the rows of the matrix product and output channels its columns, so that tiles
//! are filled all the same.

use super::operands::{self, Operands};
use super::window::Window2d;
use crate::base::{DType, Tensor};
use crate::device::cpu::call::{Call, CpuCode, Packing};
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::gemm::core::{self, Isa, Rows, Weights};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;

/// Weights `[m][k]` as the product's B, `[k][m]`.
fn panels(isa: &Isa, p: &ConvProblem, w: &[f32]) -> Vec<f32> {
    let k = w.len() / p.m.max(1);
    let mut packed = vec![0.0; core::packed_len(isa, k, p.m)];
    core::pack_b(isa, w, (1, k), (k, p.m), &mut packed, |x| x);
    packed
}

/// The kernel on one instruction set.
pub(super) struct On(pub &'static Isa);

impl CpuCode for On {
    fn pack(&self, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
        operands::pack(self.0, panels, problem, constants)
    }

    fn run(&self, call: &mut Call) -> Result<()> {
        let operands = Operands::new(self.0, panels, call)?;
        let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
        let p = operands.p;
        let image = p.m * p.window.pixels();
        match &operands.epilogue {
            Some(e) if image > 0 => {
                let mut sums = vec![0.0; p.n * image];
                convolve(&operands, &mut sums);
                for (n, (sums, out)) in sums.chunks_exact(image).zip(out.bytes.chunks_exact_mut(image * e.size())).enumerate() {
                    e.image(n, p.window.pixels(), sums, out);
                }
            }
            _ => convolve(&operands, out.slice()),
        }
        Ok(())
    }
}

/// Sums with bias; `out` is images by channels.
fn convolve(o: &Operands, out: &mut [f32]) {
    let (isa, p) = (o.isa, o.p);
    let window = Window2d::new(&p.window);
    let (pixels, taps) = (window.pixels(), window.taps());
    let k = p.c * taps;
    if pixels == 0 || p.m == 0 {
        return;
    }
    let fill = |row: usize, line: &mut [f32]| {
        let (image, pixel) = (row / pixels, row % pixels);
        let x = &o.x[image * p.c * window.plane()..];
        let (oy, ox) = (pixel / window.output[1], pixel % window.output[1]);
        let start = |a: usize, o: usize| (o * window.strides[a]) as i64 - window.pads[a];
        for (i, row) in line.chunks_exact_mut(window.kernel[1]).enumerate() {
            let (c, ky) = (i / window.kernel[0], i % window.kernel[0]);
            let iy = start(0, oy) + (ky * window.dilations[0]) as i64;
            match usize::try_from(iy) {
                Ok(iy) if iy < window.input[0] => {
                    let at = c * window.plane() + iy * window.input[1];
                    taps_of_line(&x[at..at + window.input[1]], start(1, ox), window.dilations[1], row);
                }
                _ => row.fill(0.0),
            }
        }
    };
    let shared = Disjoint::new(out);
    let done = |row: usize, first: usize, sums: &mut [f32]| {
        let (image, pixel) = (row / pixels, row % pixels);
        for (m, &sum) in (first..).zip(&*sums) {
            // SAFETY: each (row, column) of the product is finished once.
            let to = unsafe { shared.part((image * p.m + m) * pixels + pixel, 1) };
            to[0] = sum + o.bias_of(m);
        }
    };
    let b = Weights::packed(isa, k, p.m, DType::F32, bytemuck::cast_slice(&o.weights));
    core::product(isa, p.n * pixels, Rows::Each(&fill), &b, &done);
}

/// Every `step`-th element of a line from `start` on, zeros outside.
fn taps_of_line(line: &[f32], start: i64, step: usize, out: &mut [f32]) {
    let inside = start >= 0 && start as usize + (out.len() - 1) * step < line.len();
    match step {
        1 if inside => out.copy_from_slice(&line[start as usize..][..out.len()]),
        _ => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = usize::try_from(start + (i * step) as i64).ok().and_then(|at| line.get(at)).copied().unwrap_or(0.0);
            }
        }
    }
}
