//! What values a tensor takes over many runs, in memory that does not grow with them.

/// Bins of a histogram; zero lies between the two in the middle.
const BINS: usize = 4096;

/// Smallest, largest and a histogram over `[-range, range]`, whose range doubles when a value lies outside: then two bins become one.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The smallest value; above `max` before the first.
    pub min: f32,
    /// The largest value.
    pub max: f32,
    /// Values that are not finite; they are in nothing else.
    pub not_finite: u64,
    range: f64,
    bins: Vec<u64>,
}

impl Default for Observed {
    fn default() -> Self {
        Observed { min: f32::INFINITY, max: f32::NEG_INFINITY, not_finite: 0, range: 0.0, bins: vec![0; BINS] }
    }
}

impl Observed {
    /// Adds values.
    pub fn add(&mut self, values: &[f32]) {
        let finite = |v: &&f32| v.is_finite();
        let (min, max) = values.iter().filter(finite).fold((self.min, self.max), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        if min > max {
            self.not_finite += values.len() as u64;
            return;
        }
        (self.min, self.max) = (min, max);
        self.widen(f64::from(max.max(-min)));
        let per_unit = if self.range > 0.0 { BINS as f64 / 2.0 / self.range } else { 0.0 };
        for &v in values {
            if v.is_finite() {
                let bin = (f64::from(v) * per_unit).floor() as i64 + BINS as i64 / 2;
                self.bins[bin.clamp(0, BINS as i64 - 1) as usize] += 1;
            } else {
                self.not_finite += 1;
            }
        }
    }

    /// Takes the range to `largest` or more by powers of two.
    fn widen(&mut self, largest: f64) {
        if self.range == 0.0 && largest > 0.0 {
            // All until now were zeros, which stay in their bin.
            self.range = largest;
        }
        while self.range < largest {
            self.range *= 2.0;
            let mut merged = vec![0; BINS];
            self.bins.iter().enumerate().for_each(|(i, n)| merged[i / 2 + BINS / 4] += n);
            self.bins = merged;
        }
    }

    /// Finite values so far.
    pub fn count(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// The middle and the number of each bin that holds something, from the smallest.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> {
        let width = self.bin_width();
        let middle = move |i: usize| ((i as f64 + 0.5) - BINS as f64 / 2.0) * width;
        self.bins.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, &n)| (middle(i), n))
    }

    /// Width of a bin.
    pub fn bin_width(&self) -> f64 {
        2.0 * self.range / BINS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn a_range_that_grows_loses_no_value_and_no_place() {
        let mut r = Xorshift::new(1);
        let values: Vec<f32> = (0..5000).map(|i| r.real() * r.real() * (1.0 + i as f32 / 100.0)).collect();
        let (mut piecewise, mut whole) = (Observed::default(), Observed::default());
        values.chunks(7).for_each(|c| piecewise.add(c));
        whole.add(&[0.0]);
        whole.add(&values);
        assert_eq!((piecewise.count(), whole.count()), (5000, 5001));
        assert_eq!((piecewise.min, piecewise.max), (whole.min, whole.max));
        // As many below each bin's edge as there are values.
        let width = piecewise.bin_width();
        for (middle, _) in piecewise.bins().step_by(97) {
            let edge = middle + width / 2.0;
            let below: u64 = piecewise.bins().take_while(|(m, _)| *m < edge).map(|(_, n)| n).sum();
            let want = values.iter().filter(|v| f64::from(**v) < edge).count() as u64;
            assert!(below.abs_diff(want) <= 2, "{below} {want} below {edge}");
        }
    }

    #[test]
    fn zeros_and_what_is_not_finite_are_counted() {
        let mut o = Observed::default();
        o.add(&[f32::NAN, f32::INFINITY]);
        assert_eq!((o.count(), o.not_finite), (0, 2));
        o.add(&[0.0, 0.0]);
        o.add(&[-1e-3, f32::NEG_INFINITY, 1e30]);
        assert_eq!((o.count(), o.not_finite, o.min, o.max), (4, 3, -1e-3, 1e30));
        assert!(o.bins().last().unwrap().0 > 0.9e30);
    }
}
