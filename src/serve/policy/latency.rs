//! A learned model of what batches take: `time = base + steps(rows) * (per_row + per_element * length)`, where `steps` rounds rows up as the kernels
//! or the plans do. One recursive least squares for each way of rounding; the one that predicts best is used.

use super::noise::Noise;

/// How rows are rounded up before time grows linearly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// To multiples.
    Tile(u32),
    /// To powers of two.
    PowerOfTwo,
}

impl Shape {
    /// Rows after rounding.
    pub fn steps(self, rows: u32) -> u32 {
        match self {
            Shape::Tile(tile) => rows.div_ceil(tile) * tile,
            Shape::PowerOfTwo => rows.max(1).next_power_of_two(),
        }
    }
}

const SHAPES: [Shape; 8] = [
    Shape::Tile(1),
    Shape::PowerOfTwo,
    Shape::Tile(2),
    Shape::Tile(4),
    Shape::Tile(8),
    Shape::Tile(16),
    Shape::Tile(32),
    Shape::Tile(64),
];
/// What is left of an observation's weight with each that follows.
const KEEP: f64 = 0.995;
/// What is left of all weights when latency has drifted.
const KEEP_ON_DRIFT: f64 = 0.02;
/// Drift is where the errors of one sign, less [`ALLOWED`] spreads each, add up to this many spreads.
const DRIFT: f64 = 12.0;
const ALLOWED: f64 = 0.75;
/// Observations before predictions are compared.
const WARM: u32 = 12;

/// Weighted least squares over three features, relative errors counting equally.
#[derive(Debug, Clone, Copy, Default)]
struct Fit {
    /// Sums of products of features: 00, 01, 02, 11, 12, 22; then of features and times.
    sums: [f64; 9],
    coefficients: [f64; 3],
    /// Mean square of the logarithm of prediction errors.
    error: f64,
}

impl Fit {
    fn time(&self, steps: f64, length: f64) -> f64 {
        let [base, row, element] = self.coefficients;
        base + steps * (row + element * length)
    }

    fn learn(&mut self, steps: f64, length: f64, took_s: f64, expected_s: f64, keep: f64) {
        let weight = 1.0 / (expected_s * expected_s);
        let x = [1.0, steps, steps * length];
        let products = [1.0, x[1], x[2], x[1] * x[1], x[1] * x[2], x[2] * x[2], took_s, took_s * x[1], took_s * x[2]];
        for (sum, product) in self.sums.iter_mut().zip(products) {
            *sum = *sum * keep + weight * product;
        }
        self.solve();
    }

    /// Normal equations with a ridge towards what was known: what the batches seen do not tell stays. Time never falls with rows or length.
    fn solve(&mut self) {
        let s = &self.sums;
        let diagonal = [s[0], s[3], s[5]];
        let [r0, r1, r2] = diagonal.map(|d| 1e-4 * d + 1e-30);
        let old = self.coefficients;
        let (a, b, c, d, e, f) = (s[0] + r0, s[1], s[2], s[3] + r1, s[4], s[5] + r2);
        let y = [s[6] + r0 * old[0], s[7] + r1 * old[1], s[8] + r2 * old[2]];
        // Cholesky's factors, by hand for three.
        let l11 = a.sqrt();
        let (l21, l31) = (b / l11, c / l11);
        let l22 = (d - l21 * l21).max(1e-12 * d).sqrt();
        let l32 = (e - l21 * l31) / l22;
        let l33 = (f - l31 * l31 - l32 * l32).max(1e-12 * f).sqrt();
        let z = [y[0] / l11, (y[1] - l21 * y[0] / l11) / l22, 0.0];
        let z3 = (y[2] - l31 * z[0] - l32 * z[1]) / l33;
        let x3 = z3 / l33;
        let x2 = (z[1] - l32 * x3) / l22;
        let x1 = (z[0] - l21 * x2 - l31 * x3) / l11;
        if x1.is_finite() && x2.is_finite() && x3.is_finite() {
            self.coefficients = [x1, x2, x3];
            self.clamp();
        }
    }

    /// Without negative coefficients: what a negative one stood for goes to the others.
    fn clamp(&mut self) {
        let s = self.sums;
        let [base, row, element] = self.coefficients;
        if element < 0.0 || row < 0.0 {
            // Two features: one, and rows, or rows times length.
            let (x, xx, xy, at) = if element < 0.0 { (s[1], s[3], s[7], 1) } else { (s[2], s[5], s[8], 2) };
            let spread = s[0] * xx - x * x;
            let slope =
                if spread > 1e-9 * s[0] * xx { ((s[0] * xy - x * s[6]) / spread).max(0.0) } else { row.max(element).max(0.0) };
            self.coefficients = [(s[6] - slope * x) / s[0], 0.0, 0.0];
            self.coefficients[at] = slope;
        }
        if base < 0.0 || self.coefficients[0] < 0.0 {
            self.coefficients[0] = 0.0;
        }
    }
}

/// The model of one served model's batches.
#[derive(Debug, Clone)]
pub struct Latency {
    fits: [Fit; SHAPES.len()],
    best: usize,
    seen: u32,
    version: u32,
    drift: [f64; 2],
    /// How far batches stray from the model.
    pub noise: Noise,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { fits: [Fit::default(); SHAPES.len()], best: 0, seen: 0, version: 0, drift: [0.0; 2], noise: Noise::default() }
    }
}

impl Latency {
    /// Batches that it has learned from.
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// Changes with every batch learned from.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How rows are rounded, as far as it is known.
    pub fn shape(&self) -> Shape {
        SHAPES[self.best]
    }

    /// Seconds that a batch of `rows` of `length` is expected to take; 0 as long as nothing is known.
    pub fn expected_s(&self, rows: u32, length: u32) -> f64 {
        self.fits[self.best].time(f64::from(self.shape().steps(rows)), f64::from(length)).max(0.0)
    }

    /// Learns from a batch. Times that no clock gives (zero, not finite) are ignored.
    pub fn learn(&mut self, rows: u32, length: u32, took_s: f64) {
        if !took_s.is_finite() || took_s <= 0.0 || rows == 0 {
            return;
        }
        let known = self.expected_s(rows, length);
        let log_ratio = if self.seen > 0 && known > 0.0 { (took_s / known).ln() } else { 0.0 };
        let keep = if self.drifted(log_ratio) { KEEP_ON_DRIFT } else { KEEP };
        // One slow batch is an outlier; several are drift.
        let limit = if self.seen < WARM { f64::INFINITY } else { (4.0 * self.noise.spread()).max(0.2) };
        let took_s = if log_ratio > limit { known * limit.exp() } else { took_s };
        if self.seen > 2 {
            self.noise.learn(log_ratio);
        }
        self.seen += 1;
        self.version = self.version.wrapping_add(1);
        self.fit_all(rows, length, took_s, keep);
    }

    fn fit_all(&mut self, rows: u32, length: u32, took_s: f64, keep: f64) {
        for (fit, shape) in self.fits.iter_mut().zip(SHAPES) {
            let steps = f64::from(shape.steps(rows));
            let before = fit.time(steps, f64::from(length));
            let expected = if before > 0.2 * took_s { before.min(5.0 * took_s) } else { took_s };
            if self.seen > WARM {
                let error = (took_s / expected).ln();
                fit.error += (error * error - fit.error) / f64::from((self.seen - WARM).min(300));
            }
            fit.learn(steps, f64::from(length), took_s, expected, keep);
        }
        let better = (0..SHAPES.len()).min_by(|&a, &b| self.fits[a].error.total_cmp(&self.fits[b].error)).unwrap_or(0);
        if self.fits[better].error < 0.97 * self.fits[self.best].error {
            self.best = better;
        }
    }

    /// Two-sided cumulative sums (Page, 1954) of the errors in spreads.
    fn drifted(&mut self, log_ratio: f64) -> bool {
        if self.seen < WARM {
            return false;
        }
        let error = (log_ratio / self.noise.spread().max(0.02)).clamp(-4.0, 4.0);
        for (sum, sign) in self.drift.iter_mut().zip([1.0, -1.0]) {
            *sum = (*sum + sign * error - ALLOWED).max(0.0);
        }
        let drifted = self.drift.iter().any(|&sum| sum > DRIFT);
        if drifted {
            self.drift = [0.0; 2];
        }
        drifted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    fn taught(time: impl Fn(u32, u32) -> f64, noise: f64, lengths: &[u32], batches: usize) -> Latency {
        let (mut random, mut latency) = (Xorshift::new(5), Latency::default());
        for _ in 0..batches {
            let (rows, length) = (1 + random.below(64) as u32, lengths[random.below(lengths.len())]);
            let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
            latency.learn(rows, length, time(rows, length) * (noise * normal).exp());
        }
        latency
    }

    fn assert_close(latency: &Latency, time: impl Fn(u32, u32) -> f64, length: u32, tolerance: f64) {
        for rows in [1, 8, 17, 32, 33, 64] {
            let (found, truth) = (latency.expected_s(rows, length), time(rows, length));
            assert!(
                (found / truth - 1.0).abs() < tolerance,
                "{rows} rows of {length}: {found} for {truth}, {:?}",
                latency.shape()
            );
        }
    }

    #[test]
    fn lines_tiles_and_powers_of_two_are_found_also_in_noise() {
        let line = |rows: u32, _: u32| 2e-3 + 0.05e-3 * f64::from(rows);
        assert_close(&taught(line, 0.0, &[1], 50), line, 1, 0.01);
        assert_close(&taught(line, 0.2, &[1], 600), line, 1, 0.12);
        let tile = |rows: u32, _: u32| 1e-3 + 0.1e-3 * f64::from(rows.div_ceil(16) * 16);
        let latency = taught(tile, 0.2, &[1], 600);
        assert_eq!(latency.shape(), Shape::Tile(16));
        assert_close(&latency, tile, 1, 0.12);
        let doubling = |rows: u32, _: u32| 1e-3 + 0.1e-3 * f64::from(rows.next_power_of_two());
        assert_eq!(taught(doubling, 0.05, &[1], 300).shape(), Shape::PowerOfTwo);
    }

    #[test]
    fn length_counts() {
        let time = |rows: u32, length: u32| 1e-3 + 1e-6 * f64::from(rows) * f64::from(length);
        let latency = taught(time, 0.1, &[16, 64, 256, 1024], 600);
        [64, 1024].iter().for_each(|&length| assert_close(&latency, time, length, 0.15));
    }

    #[test]
    fn drift_is_followed_and_single_slow_batches_are_not() {
        let slow = |rows: u32, factor: f64| factor * (1e-3 + 0.1e-3 * f64::from(rows));
        let mut latency = taught(|rows, _| slow(rows, 1.0), 0.1, &[1], 500);
        latency.learn(32, 1, 50.0 * slow(32, 1.0));
        assert!((latency.expected_s(32, 1) / slow(32, 1.0) - 1.0).abs() < 0.1);
        (0..40).for_each(|i| latency.learn(1 + i * 13 % 64, 1, slow(1 + i * 13 % 64, 2.0)));
        assert!((latency.expected_s(32, 1) / slow(32, 2.0) - 1.0).abs() < 0.15, "{}", latency.expected_s(32, 1) / slow(32, 2.0));
    }

    #[test]
    fn times_that_no_clock_gives_are_ignored() {
        let mut latency = Latency::default();
        [0.0, -1.0, f64::NAN, f64::INFINITY].iter().for_each(|&t| latency.learn(4, 1, t));
        assert_eq!((latency.seen(), latency.expected_s(4, 1)), (0, 0.0));
    }
}
