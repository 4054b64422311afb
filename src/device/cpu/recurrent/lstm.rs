//! LSTM steps in f32: the input's products for all steps at once, the state's step by step.

use super::panels::{Product, Weight};
use crate::base::quant;
use crate::device::cpu::isa::{Isa, Work};
use crate::graph::problem::RecurrentProblem;
use crate::scalar::cpu::math::{exp, tanh};

/// Weights `[k, 4 * hidden]` in panels.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    Float(&'a [f32]),
    /// Less their zero points, with one scale for each column.
    Quantized(&'a [i16], &'a [f32]),
}

/// `rows[m, k]` times the weights into `out[m, n]`. Quantised weights meet each row quantised to u8 by its own range.
pub(super) fn product(isa: Isa, rows: &[f32], weights: Weights, out: &mut [f32], k: usize, n: usize) {
    match weights {
        Weights::Float(weights) => run_product(isa, rows, weights, out, k, n),
        Weights::Quantized(weights, scales) => {
            let m = out.len() / n.max(1);
            let mut q = vec![0i16; m * k];
            let mut sums = vec![0i32; m * n];
            let row_scales: Vec<f32> = (0..m).map(|r| quantize_row(&rows[r * k..][..k], &mut q[r * k..][..k])).collect();
            run_product(isa, &q, weights, &mut sums, k, n);
            for (r, scale) in row_scales.into_iter().enumerate() {
                let sums = sums[r * n..][..n].iter().zip(scales);
                out[r * n..][..n].iter_mut().zip(sums).for_each(|(o, (&sum, s))| *o = sum as f32 * (scale * s));
            }
        }
    }
}

fn run_product<W: Weight>(isa: Isa, rows: &[W::Left], weights: &[W], out: &mut [W::Sum], k: usize, n: usize) {
    match isa {
        Isa::Avx2 | Isa::Neon => isa.run(Product::<W, 16> { rows, weights, out, k, n }),
        Isa::Avx512 => isa.run(Product::<W, 32> { rows, weights, out, k, n }),
    }
}

/// The row as u8 less its zero point; gives the scale.
fn quantize_row(row: &[f32], q: &mut [i16]) -> f32 {
    let (lo, hi) = row.iter().fold((0f32, 0f32), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let (scale, zero) = quant::dynamic_u8(lo, hi);
    let zero = i32::from(zero);
    q.iter_mut().zip(row).for_each(|(q, &v)| *q = (quant::quantize(v, scale, zero, 0, 255) - zero) as i16);
    scale
}

/// One direction of a layer.
pub(super) struct Direction<'a> {
    pub problem: &'a RecurrentProblem,
    pub number: usize,
    pub x: &'a [f32],
    pub w: Weights<'a>,
    pub r: Weights<'a>,
    /// Sum of both biases, for each gate.
    pub bias: Vec<f32>,
    pub lengths: Option<&'a [i32]>,
    pub peepholes: Option<&'a [f32]>,
}

impl Direction<'_> {
    /// Runs all steps; h and c are `[batch, hidden]`, y is `[seq_len, batch, hidden]`.
    pub(super) fn run(&self, isa: Isa, h: &mut [f32], c: &mut [f32], y: &mut [f32]) {
        let p = self.problem;
        let (n, gates) = (p.hidden_size, 4 * p.hidden_size);
        if n == 0 {
            return;
        }
        let mut from_x = vec![0.0; p.seq_len * p.batch * gates];
        product(isa, self.x, self.w, &mut from_x, p.input_size, gates);
        let mut from_h = vec![0.0; p.batch * gates];
        for step in 0..p.seq_len {
            product(isa, h, self.r, &mut from_h, n, gates);
            for b in 0..p.batch {
                let len = self.lengths.map_or(p.seq_len, |l| (l[b].max(0) as usize).min(p.seq_len));
                if step >= len {
                    continue;
                }
                let t = if p.reverse[self.number] { len - 1 - step } else { step };
                let token = if p.batch_first { b * p.seq_len + t } else { t * p.batch + b };
                let row = b * n..(b + 1) * n;
                isa.run(Gates {
                    from_x: &from_x[token * gates..][..gates],
                    from_h: &from_h[b * gates..][..gates],
                    bias: &self.bias,
                    peepholes: self.peepholes,
                    h: &mut h[row.clone()],
                    c: &mut c[row.clone()],
                });
                y[(t * p.batch + b) * n..][..n].copy_from_slice(&h[row]);
            }
        }
    }
}

/// The gates of one row: input, output, forget, cell.
struct Gates<'a> {
    from_x: &'a [f32],
    from_h: &'a [f32],
    bias: &'a [f32],
    peepholes: Option<&'a [f32]>,
    h: &'a mut [f32],
    c: &'a mut [f32],
}

impl Work for Gates<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let n = self.h.len();
        match self.peepholes {
            Some(p) => self.update(|i| [p[i], p[n + i], p[2 * n + i]]),
            None => self.update(|_| [0.0; 3]),
        }
    }
}

impl Gates<'_> {
    #[inline(always)]
    fn update(self, peep: impl Fn(usize) -> [f32; 3]) {
        let n = self.h.len();
        let [xi, xo, xf, xc] = by_gate(self.from_x, n);
        let [hi, ho, hf, hc] = by_gate(self.from_h, n);
        let [bi, bo, bf, bc] = by_gate(self.bias, n);
        for (j, (h, c)) in self.h.iter_mut().zip(self.c.iter_mut()).enumerate() {
            let [pi, po, pf] = peep(j);
            let input = sigmoid(xi[j] + hi[j] + bi[j] + pi * *c);
            let forget = sigmoid(xf[j] + hf[j] + bf[j] + pf * *c);
            *c = forget * *c + input * tanh(xc[j] + hc[j] + bc[j]);
            *h = sigmoid(xo[j] + ho[j] + bo[j] + po * *c) * tanh(*c);
        }
    }
}

/// The four gates' parts, `n` elements each.
#[inline(always)]
fn by_gate(v: &[f32], n: usize) -> [&[f32]; 4] {
    std::array::from_fn(|gate| &v[gate * n..][..n])
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}
