//! The cells, each written once for one row: the reference runs them in f64, the vector kernels in f32.

use std::ops::{Add, Mul, Neg, Sub};

/// f32 or f64.
pub(super) trait Real:
    Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self> + From<f32>
{
}
impl Real for f32 {}
impl Real for f64 {}

/// What a cell is besides its weights.
pub(super) struct Rules<'a, T, A> {
    /// Bound of the gates' sums.
    pub clip: Option<f32>,
    /// Weights by which gates input, output and forget see the cell state.
    pub peepholes: Option<&'a [T]>,
    /// Applies activation `n` to each element.
    pub activate: A,
}

impl<T: Real, A: Fn(usize, &mut [T])> Rules<'_, T, A> {
    /// Activation `n` of the sums, clipped.
    #[inline(always)]
    fn gate(&self, n: usize, sums: &mut [T]) {
        if let Some(clip) = self.clip {
            let high = T::from(clip.abs());
            let low = -high;
            sums.iter_mut().for_each(|s| *s = if *s > high { high } else { *s });
            sums.iter_mut().for_each(|s| *s = if *s < low { low } else { *s });
        }
        (self.activate)(n, sums);
    }

    /// Adds what gate `n` sees of the cell state.
    #[inline(always)]
    fn peep(&self, n: usize, sums: &mut [T], c: &[T]) {
        if let Some(weights) = self.peepholes {
            let weights = &weights[n * c.len()..][..c.len()];
            sums.iter_mut().zip(weights).zip(c).for_each(|((s, &w), &c)| *s = *s + w * c);
        }
    }

    /// New h from the sums.
    #[inline(always)]
    pub(super) fn rnn(&self, sums: &[T], h: &mut [T]) {
        h.copy_from_slice(sums);
        self.gate(0, h);
    }

    /// New h and c from the sums of gates input, output, forget and cell, which are used up. `coupled`: the forget gate is what the
    /// input gate leaves.
    #[inline(always)]
    pub(super) fn lstm(&self, coupled: bool, sums: &mut [T], h: &mut [T], c: &mut [T]) {
        let n = h.len();
        let (input, rest) = sums.split_at_mut(n);
        let (output, rest) = rest.split_at_mut(n);
        let (forget, new) = rest.split_at_mut(n);
        self.peep(0, input, c);
        self.gate(0, input);
        if coupled {
            forget.iter_mut().zip(&*input).for_each(|(f, &i)| *f = T::from(1.0) - i);
        } else {
            self.peep(2, forget, c);
            self.gate(0, forget);
        }
        self.gate(1, new);
        for (((c, &f), &i), &new) in c.iter_mut().zip(&*forget).zip(&*input).zip(&*new) {
            *c = f * *c + i * new;
        }
        self.peep(1, output, c);
        self.gate(0, output);
        h.copy_from_slice(c);
        (self.activate)(2, h);
        h.iter_mut().zip(&*output).for_each(|(h, &o)| *h = o * *h);
    }

    /// Turns the sums of gates update and reset into the gates; `met` becomes h as the reset gate leaves it.
    #[inline(always)]
    pub(super) fn gru_gates(&self, sums: &mut [T], h: &[T], met: Option<&mut [T]>) {
        let n = h.len();
        self.gate(0, &mut sums[..2 * n]);
        if let Some(met) = met {
            met.iter_mut().zip(h).zip(&sums[n..]).for_each(|((m, &h), &r)| *m = r * h);
        }
    }

    /// New h from the gates update and reset and the sum of the hidden one. `linear`: what the reset gate meets before it is added
    /// to that sum.
    #[inline(always)]
    pub(super) fn gru(&self, sums: &mut [T], linear: Option<&[T]>, h: &mut [T]) {
        let (gates, hidden) = sums.split_at_mut(2 * h.len());
        let (update, reset) = gates.split_at(h.len());
        if let Some(linear) = linear {
            hidden.iter_mut().zip(reset).zip(linear).for_each(|((s, &r), &l)| *s = *s + r * l);
        }
        self.gate(1, hidden);
        for ((h, &u), &new) in h.iter_mut().zip(update).zip(&*hidden) {
            *h = (T::from(1.0) - u) * new + u * *h;
        }
    }
}
