//! The steps of one direction: products for all rows of a batch, then the cell row by row.

use super::activation::Activation;
use super::cell::Rules;
use super::vector::Sequence;
use super::weights::Matrix;
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::isa::{Isa, Work};
use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::recurrent::Cell;

/// One direction of a layer.
pub(super) struct Direction<'a> {
    pub problem: &'a RecurrentProblem,
    pub number: usize,
    pub isa: Isa,
    /// Of all tokens, input_size each.
    pub x: &'a [f32],
    /// Of w; of r for the gates that see h; of r for the hidden gate of a GRU.
    pub matrices: Vec<Matrix<'a>>,
    /// Of w, then of r.
    pub bias: Option<&'a [f32]>,
    pub activations: &'a [Activation],
    pub lengths: Option<&'a [i32]>,
    pub peepholes: Option<&'a [f32]>,
    pub y: &'a Sequence<'a>,
}

/// Working memory of one direction.
pub(super) struct Memory<'a> {
    /// Products of all tokens with w, and biases.
    from_x: &'a mut [f32],
    /// Sums of all gates for each row of the batch.
    sums: &'a mut [f32],
    /// What the hidden gate of a GRU sees, or (linear) what the reset gate meets.
    met: &'a mut [f32],
    /// For quantised rows.
    ranges: &'a mut [f32],
    bias: &'a mut [f32],
}

impl<'a> Memory<'a> {
    fn lens(p: &RecurrentProblem) -> [usize; 5] {
        let (tokens, gates) = (p.seq_len * p.batch, p.cell.gates() * p.hidden_size);
        let met = if let Cell::Gru { .. } = p.cell { p.batch * p.hidden_size } else { 0 };
        let ranges = if p.quantized.is_some() { 2 * tokens.max(p.batch) } else { 0 };
        [tokens * gates, p.batch * gates, met, ranges, gates]
    }

    /// Elements of f32 in all.
    pub(super) fn len(p: &RecurrentProblem) -> usize {
        Self::lens(p).iter().sum()
    }

    fn new(p: &RecurrentProblem, mut memory: &'a mut [f32]) -> Self {
        let [from_x, sums, met, ranges, bias] = Self::lens(p).map(|len| {
            let (part, rest) = std::mem::take(&mut memory).split_at_mut(len);
            memory = rest;
            part
        });
        Memory { from_x, sums, met, ranges, bias }
    }
}

impl Direction<'_> {
    /// Runs all steps; h and c are `[batch, hidden]`.
    pub(super) fn run(&self, h: &mut [f32], c: &mut [f32], memory: &mut [f32]) {
        let p = self.problem;
        if p.hidden_size == 0 {
            return;
        }
        let mut memory = Memory::new(p, memory);
        self.inputs(&mut memory);
        for step in 0..p.seq_len {
            self.direct(step, h, &mut memory);
            match p.cell {
                Cell::Gru { linear_before_reset: true } => {
                    self.hidden(step, h, &mut memory);
                    self.cells(step, Phase::Gates, h, c, &mut memory);
                }
                Cell::Gru { linear_before_reset: false } => {
                    self.cells(step, Phase::Gates, h, c, &mut memory);
                    self.hidden(step, h, &mut memory);
                }
                _ => {}
            }
            self.cells(step, Phase::State, h, c, &mut memory);
        }
    }

    /// Whether the reset gate meets a product rather than the state.
    fn linear(&self) -> bool {
        matches!(self.problem.cell, Cell::Gru { linear_before_reset: true })
    }

    /// The token of row `b` at a step, unless its sequence has ended.
    fn time(&self, step: usize, b: usize) -> Option<usize> {
        let p = self.problem;
        let len = self.lengths.map_or(p.seq_len, |l| (l[b].max(0) as usize).min(p.seq_len));
        (step < len).then(|| if p.reverse[self.number] { len - 1 - step } else { step })
    }

    /// First product of the row's token.
    fn token(&self, step: usize, b: usize) -> Option<usize> {
        let p = self.problem;
        let t = self.time(step, b)?;
        Some((if p.batch_first { b * p.seq_len + t } else { t * p.batch + b }) * p.cell.gates() * p.hidden_size)
    }

    /// Products of all tokens with w, and all biases but that of r which a linear GRU adds before it resets.
    fn inputs(&self, memory: &mut Memory) {
        let p = self.problem;
        let (n, gates) = (p.hidden_size, memory.bias.len());
        memory.bias.fill(0.0);
        if let Some((w, r)) = self.bias.map(|b| b.split_at(gates)) {
            memory.bias.copy_from_slice(w);
            let direct = if self.linear() { 2 * n } else { gates };
            memory.bias[..direct].iter_mut().zip(r).for_each(|(b, r)| *b += r);
        }
        let (out, bias) = (Disjoint::new(&mut *memory.from_x), &*memory.bias);
        self.matrices[0].product(self.isa, self.x, p.seq_len * p.batch, memory.ranges, &|row, column, x| {
            // SAFETY: each segment is finished once.
            let out = unsafe { out.part(row * gates + column, x.len()) };
            out.iter_mut().zip(&*x).zip(&bias[column..]).for_each(|((o, x), b)| *o = x + b);
        });
    }

    /// Sums of the gates that see h.
    fn direct(&self, step: usize, h: &[f32], memory: &mut Memory) {
        let gates = memory.bias.len();
        let (out, from_x) = (Disjoint::new(&mut *memory.sums), &*memory.from_x);
        self.matrices[1].product(self.isa, h, self.problem.batch, memory.ranges, &|row, column, x| {
            let Some(token) = self.token(step, row) else { return };
            // SAFETY: each segment is finished once.
            let out = unsafe { out.part(row * gates + column, x.len()) };
            out.iter_mut().zip(&*x).zip(&from_x[token + column..]).for_each(|((o, x), f)| *o = x + f);
        });
    }

    /// The hidden gate of a GRU: its sum, from what the reset gate left of h, or (linear) the part of it that it will meet.
    fn hidden(&self, step: usize, h: &[f32], memory: &mut Memory) {
        let (n, batch) = (self.problem.hidden_size, self.problem.batch);
        let from_x = &*memory.from_x;
        let sums = Disjoint::new(&mut *memory.sums);
        let sum = |row: usize, column: usize, x: &[f32], add: &dyn Fn(usize) -> f32| {
            let Some(token) = self.token(step, row) else { return };
            // SAFETY: each segment is finished once.
            let out = unsafe { sums.part((3 * row + 2) * n + column, x.len()) };
            let from_x = &from_x[token + 2 * n + column..];
            out.iter_mut().zip(from_x).enumerate().for_each(|(j, (o, f))| *o = f + add(j));
        };
        if !self.linear() {
            let done = |row: usize, column: usize, x: &mut [f32]| sum(row, column, x, &|j| x[j]);
            return self.matrices[2].product(self.isa, memory.met, batch, memory.ranges, &done);
        }
        let bias = self.bias.map(|b| &b[5 * n..]);
        let met = Disjoint::new(&mut *memory.met);
        self.matrices[2].product(self.isa, h, batch, memory.ranges, &|row, column, x| {
            sum(row, column, x, &|_| 0.0);
            // SAFETY: each segment is finished once.
            let out = unsafe { met.part(row * n + column, x.len()) };
            out.copy_from_slice(x);
            if let Some(bias) = bias {
                out.iter_mut().zip(&bias[column..]).for_each(|(o, b)| *o += b);
            }
        });
    }

    /// The cell for all rows whose sequence goes on.
    fn cells(&self, step: usize, phase: Phase, h: &mut [f32], c: &mut [f32], memory: &mut Memory) {
        let Memory { sums, met, .. } = memory;
        self.isa.run(Cells { of: self, step, phase, h, c, sums, met });
    }
}

/// What the cells do.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Gates update and reset of a GRU.
    Gates,
    /// The new state.
    State,
}

struct Cells<'a> {
    of: &'a Direction<'a>,
    step: usize,
    phase: Phase,
    h: &'a mut [f32],
    c: &'a mut [f32],
    sums: &'a mut [f32],
    met: &'a mut [f32],
}

impl Work for Cells<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let p = self.of.problem;
        let n = p.hidden_size;
        let activate = |i: usize, x: &mut [f32]| self.of.activations[i].apply(x);
        let rules = Rules { clip: p.clip, peepholes: self.of.peepholes, activate };
        for b in 0..p.batch {
            let Some(t) = self.of.time(self.step, b) else { continue };
            let sums = &mut self.sums[b * p.cell.gates() * n..][..p.cell.gates() * n];
            let h = &mut self.h[b * n..][..n];
            match (p.cell, self.phase) {
                (Cell::Gru { linear_before_reset }, phase) => {
                    let met = &mut self.met[b * n..][..n];
                    match phase {
                        Phase::Gates => rules.gru_gates(sums, h, (!linear_before_reset).then_some(met)),
                        Phase::State => rules.gru(sums, linear_before_reset.then_some(&*met), h),
                    }
                }
                (Cell::Lstm { input_forget }, _) => rules.lstm(input_forget, sums, h, &mut self.c[b * n..][..n]),
                (Cell::Rnn, _) => rules.rnn(sums, h),
            }
            if self.phase == Phase::State {
                self.of.y.write(self.of.number, t, b, h);
            }
        }
    }
}
