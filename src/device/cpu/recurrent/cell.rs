//! One step of a cell for one row, in f64.

use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::recurrent::{Activation, Cell};

/// An activation of `x`.
pub(super) fn activate(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Relu => x.max(0.0),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Affine { alpha, beta } => f64::from(alpha) * x + f64::from(beta),
        Activation::LeakyRelu { alpha } => {
            if x >= 0.0 {
                x
            } else {
                f64::from(alpha) * x
            }
        }
        Activation::ThresholdedRelu { alpha } => {
            if x > f64::from(alpha) {
                x
            } else {
                0.0
            }
        }
        Activation::ScaledTanh { alpha, beta } => f64::from(alpha) * (f64::from(beta) * x).tanh(),
        Activation::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        Activation::Elu { alpha } => {
            if x >= 0.0 {
                x
            } else {
                f64::from(alpha) * x.exp_m1()
            }
        }
    }
}

/// What a step of one row of one direction works on. Products and biases lie gate after gate.
pub(super) struct Step<'a> {
    /// The layer.
    pub problem: &'a RecurrentProblem,
    /// Its direction's activations.
    pub activations: &'a [Activation],
    /// `w x + bias of w`.
    pub from_x: &'a [f64],
    /// `r h` of the old h, without bias.
    pub from_h: &'a [f64],
    /// Bias of r.
    pub bias: &'a [f64],
    /// Input, output and forget weights of the old (output: the new) cell state.
    pub peepholes: Option<&'a [f64]>,
}

impl Step<'_> {
    /// Activation `n` of the clipped `x`.
    fn act(&self, n: usize, x: f64) -> f64 {
        let x = self.problem.clip.map_or(x, |c| x.clamp(-f64::from(c).abs(), f64::from(c).abs()));
        activate(self.activations[n], x)
    }

    fn sum(&self, gate: usize, i: usize) -> f64 {
        let at = gate * self.problem.hidden_size + i;
        self.from_x[at] + self.from_h[at] + self.bias[at]
    }

    /// Updates h, and c of an LSTM. `again` gives `r h` of the hidden gate for a state that the reset gate has met.
    pub(super) fn run(&self, h: &mut [f64], c: &mut [f64], again: impl Fn(&[f64]) -> Vec<f64>) {
        match self.problem.cell {
            Cell::Lstm { input_forget } => (0..h.len()).for_each(|i| self.lstm(input_forget, i, &mut h[i], &mut c[i])),
            Cell::Rnn => (0..h.len()).for_each(|i| h[i] = self.act(0, self.sum(0, i))),
            Cell::Gru { linear_before_reset } => self.gru(linear_before_reset, h, again),
        }
    }

    fn lstm(&self, input_forget: bool, i: usize, h: &mut f64, c: &mut f64) {
        let peep = |n: usize| self.peepholes.map_or(0.0, |p| p[n * self.problem.hidden_size + i]);
        let input = self.act(0, self.sum(0, i) + peep(0) * *c);
        let forget = if input_forget { 1.0 - input } else { self.act(0, self.sum(2, i) + peep(2) * *c) };
        let new = self.act(1, self.sum(3, i));
        *c = forget * *c + input * new;
        let output = self.act(0, self.sum(1, i) + peep(1) * *c);
        *h = output * activate(self.activations[2], *c);
    }

    fn gru(&self, linear_before_reset: bool, h: &mut [f64], again: impl Fn(&[f64]) -> Vec<f64>) {
        let n = h.len();
        let update: Vec<f64> = (0..n).map(|i| self.act(0, self.sum(0, i))).collect();
        let reset: Vec<f64> = (0..n).map(|i| self.act(0, self.sum(1, i))).collect();
        let hidden: Vec<f64> = if linear_before_reset {
            (0..n).map(|i| reset[i] * (self.from_h[2 * n + i] + self.bias[2 * n + i])).collect()
        } else {
            let met: Vec<f64> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
            again(&met).iter().enumerate().map(|(i, v)| v + self.bias[2 * n + i]).collect()
        };
        for i in 0..n {
            let new = self.act(1, self.from_x[2 * n + i] + hidden[i]);
            h[i] = (1.0 - update[i]) * new + update[i] * h[i];
        }
    }
}
