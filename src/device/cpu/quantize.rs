//! Ranges and rounding of activations that are quantised while running.

use super::exponent::larger;
use super::isa::{Work, fold_lanes};
use crate::scalar::cpu::math;

/// Smallest and largest element and 0 (NaN ignored).
pub(super) struct Range<'a>(pub &'a [f32]);

impl Work for Range<'_> {
    type Out = (f32, f32);

    #[inline(always)]
    fn run(self) -> (f32, f32) {
        let both = |a: (f32, f32), b: (f32, f32)| (larger(a.0, b.0), larger(a.1, b.1));
        let (low, high) = fold_lanes(self.0, (0.0, 0.0), |v: f32| (-v, v), both);
        (-low, high)
    }
}

/// The largest magnitude, 0 of none (NaN ignored).
pub(super) struct Largest<'a>(pub &'a [f32]);

impl Work for Largest<'_> {
    type Out = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        fold_lanes(self.0, 0.0, |v: f32| v.abs(), larger)
    }
}

/// Elements quantised to u8, as [`crate::base::quant::quantize`] does.
pub(super) struct QuantizeU8<'a> {
    pub x: &'a [f32],
    pub y: &'a mut [u8],
    pub scale: f32,
    pub zero: u8,
}

impl Work for QuantizeU8<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let zero = f32::from(self.zero);
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            let q = (x / self.scale).round_ties_even();
            let q = if q.is_nan() { 0.0 } else { q };
            *y = math::to_i32((q + zero).clamp(0.0, 255.0)) as u8;
        }
    }
}
