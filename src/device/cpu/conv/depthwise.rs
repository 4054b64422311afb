//! One channel in each group: every output row is a sum of shifted input rows. Rows are split by the stride first, so that
//! shifted rows are contiguous whatever the stride.

use rayon::prelude::*;

use super::finish::{Epilogue, error};
use super::window::Window;
use crate::device::cpu::Call;
use crate::error::Result;
use crate::graph::Problem;

/// Pixels summed at a time, in registers.
const BLOCK: usize = 64;

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Conv(p) = call.problem else { return Err(error("the problem is of another family")) };
    let input = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")));
    let x = input(p.x_at)?.slice::<f32>();
    let w = input(p.w_at)?.slice::<f32>();
    let bias = p.b_at.map(input).transpose()?.map(|b| b.slice::<f32>());
    let epilogue = Epilogue::new(p, call.inputs)?;
    let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
    // The whole window, not the row of pixels that a 1x1 window is elsewhere, works as well: the taps are the same.
    let window = Window::new(p);
    let (pixels, taps) = (window.pixels(), window.taps());
    let out = out.slice::<f32>();
    if pixels == 0 {
        return Ok(());
    }
    let channel = |(i, plane): (usize, &mut [f32])| {
        let (n, m) = (i / p.m, i % p.m);
        let x = &x[i * window.plane()..(i + 1) * window.plane()];
        PHASES.with_borrow_mut(|buffer| {
            let split = Phases::new(&window, x, buffer);
            convolve(&window, &split, &w[m * taps..(m + 1) * taps], bias.map_or(0.0, |b| b[m]), plane);
        });
        if let Some(e) = &epilogue {
            let mut copy = vec![0f32; pixels];
            e.row(n, m, 0, plane, &mut copy);
        }
    };
    if p.flops() > 200_000.0 && rayon::current_num_threads() > 1 {
        out.par_chunks_exact_mut(pixels).enumerate().for_each(channel);
    } else {
        out.chunks_exact_mut(pixels).enumerate().for_each(channel);
    }
    Ok(())
}

thread_local! {
    static PHASES: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The padded image with the columns of each residue by the stride together: `[row][phase][column]`.
struct Phases<'a> {
    data: &'a [f32],
    columns: usize,
    stride: usize,
}

impl<'a> Phases<'a> {
    fn new(w: &Window, x: &[f32], buffer: &'a mut Vec<f32>) -> Self {
        let stride = w.strides[1];
        let reach = (w.kernel[1] - 1) * w.dilations[1];
        let columns = w.output[1].next_multiple_of(BLOCK) + reach / stride + 1;
        let rows = (w.output[0] - 1) * w.strides[0] + (w.kernel[0] - 1) * w.dilations[0] + 1;
        buffer.clear();
        buffer.resize(rows * stride * columns, 0.0);
        for (r, row) in buffer.chunks_exact_mut(stride * columns).enumerate() {
            let iy = r as i64 - w.pads[0];
            if iy < 0 || iy >= w.input[0] as i64 {
                continue;
            }
            let line = &x[iy as usize * w.input[1]..(iy as usize + 1) * w.input[1]];
            for (phase, columns) in row.chunks_exact_mut(columns).enumerate() {
                fill(line, phase as i64 - w.pads[1], stride, columns);
            }
        }
        Phases { data: buffer, columns, stride }
    }

    /// The row that output row `oy` reads for tap (`ky`, `kx`), from its first pixel on.
    fn row(&self, w: &Window, oy: usize, ky: usize, kx: usize) -> &[f32] {
        let shift = kx * w.dilations[1];
        let row = (oy * w.strides[0] + ky * w.dilations[0]) * self.stride + shift % self.stride;
        &self.data[row * self.columns + shift / self.stride..(row + 1) * self.columns]
    }
}

/// `columns[j] = line[start + j * stride]` where that exists.
fn fill(line: &[f32], start: i64, stride: usize, columns: &mut [f32]) {
    let step = stride as i64;
    let first = if start < 0 { (-start + step - 1) / step } else { 0 } as usize;
    let Some(into) = columns.get_mut(first..) else { return };
    let Some(from) = line.get((start + first as i64 * step) as usize..) else { return };
    if stride == 1 {
        let n = into.len().min(from.len());
        into[..n].copy_from_slice(&from[..n]);
    } else {
        into.iter_mut().zip(from.iter().step_by(stride)).for_each(|(o, v)| *o = *v);
    }
}

fn convolve(w: &Window, x: &Phases, weights: &[f32], bias: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instruction set.
            return unsafe { convolve_avx512(w, x, weights, bias, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instruction sets.
            return unsafe { convolve_avx2(w, x, weights, bias, out) };
        }
    }
    rows(w, x, weights, bias, out, |a, b, c| a * b + c);
}

/// # Safety
/// The processor must have AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn convolve_avx512(w: &Window, x: &Phases, weights: &[f32], bias: f32, out: &mut [f32]) {
    rows(w, x, weights, bias, out, |a: f32, b, c| a.mul_add(b, c));
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn convolve_avx2(w: &Window, x: &Phases, weights: &[f32], bias: f32, out: &mut [f32]) {
    rows(w, x, weights, bias, out, |a: f32, b, c| a.mul_add(b, c));
}

#[inline(always)]
fn rows(w: &Window, x: &Phases, weights: &[f32], bias: f32, out: &mut [f32], fma: impl Fn(f32, f32, f32) -> f32 + Copy) {
    let width = w.output[1];
    for (oy, row) in out.chunks_exact_mut(width).enumerate() {
        for (b, into) in row.chunks_mut(BLOCK).enumerate() {
            let mut sums = [bias; BLOCK];
            for ky in 0..w.kernel[0] {
                for kx in 0..w.kernel[1] {
                    let from: &[f32; BLOCK] = x.row(w, oy, ky, kx)[b * BLOCK..(b + 1) * BLOCK]
                        .try_into()
                        .expect("invariant: rows are padded to whole blocks");
                    let weight = weights[ky * w.kernel[1] + kx];
                    for (s, v) in sums.iter_mut().zip(from) {
                        *s = fma(weight, *v, *s);
                    }
                }
            }
            into.copy_from_slice(&sums[..into.len()]);
        }
    }
}
