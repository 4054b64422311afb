//! How far batches stray from what was expected of them: the probability that one takes more than a multiple of its expected time.

/// Entries of the table for each unit of the ratio.
const STEPS: f64 = 64.0;
/// Ratios from here on never happen, as far as the table goes.
const MOST: f64 = 3.0;
/// Batches over which the spread is averaged.
const MEMORY: f64 = 200.0;

/// Lognormal noise of mean 1, its spread learned.
#[derive(Debug, Clone)]
pub struct Noise {
    variance: f64,
    seen: f64,
    /// Spread for which the table was made.
    tabled: f64,
    table: Vec<f64>,
}

impl Default for Noise {
    fn default() -> Self {
        let mut noise = Noise { variance: 0.01, seen: 0.0, tabled: 0.0, table: Vec::new() };
        noise.tabulate();
        noise
    }
}

/// The normal distribution's upper tail: Numerical Recipes' `erfcc`, of relative error 1.2e-7.
fn tail(x: f64) -> f64 {
    const C: [f64; 10] = [
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    ];
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let half = 0.5 * t * (C.iter().rev().fold(0.0, |sum, c| sum * t + c) - z * z).exp();
    if x >= 0.0 { half } else { 1.0 - half }
}

impl Noise {
    /// The standard deviation of the logarithm.
    pub fn spread(&self) -> f64 {
        self.variance.sqrt()
    }

    /// Learns from the logarithm of a batch's time over what was expected. One batch counts for at most three spreads: what is
    /// slow for another reason is not noise.
    pub fn learn(&mut self, log_ratio: f64) {
        self.seen = (self.seen + 1.0).min(MEMORY);
        let most = 9.0 * self.variance.max(0.0025);
        self.variance += ((log_ratio * log_ratio).min(most) - self.variance) / (self.seen + 4.0);
        self.variance = self.variance.max(1e-6);
        if (self.spread() / self.tabled - 1.0).abs() > 0.05 {
            self.tabulate();
        }
    }

    fn tabulate(&mut self) {
        self.tabled = self.spread();
        self.table.clear();
        let shift = 0.5 * self.variance;
        let late = |i: usize| if i == 0 { 1.0 } else { tail(((i as f64 / STEPS).ln() + shift) / self.tabled) };
        self.table.extend((0..=(MOST * STEPS) as usize + 1).map(late));
    }

    /// The multiple of the expected time that is exceeded with this probability.
    pub fn ratio(&self, probability: f64) -> f64 {
        self.table.partition_point(|&late| late > probability) as f64 / STEPS
    }

    /// The probability that a batch takes longer than `ratio` times what is expected.
    pub fn late(&self, ratio: f64) -> f64 {
        let at = ratio * STEPS;
        if at <= 0.0 {
            return 1.0;
        }
        if ratio >= MOST {
            return 0.0;
        }
        let i = at as usize;
        self.table[i] + (self.table[i + 1] - self.table[i]) * (at - i as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn the_spread_of_a_lognormal_is_learned() {
        let (mut random, mut noise) = (Xorshift::new(3), Noise::default());
        let mut normal = || (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        (0..2000).for_each(|_| noise.learn(0.2 * normal()));
        assert!((noise.spread() - 0.2).abs() < 0.04, "{}", noise.spread());
        assert!((noise.late(1.0) - 0.46).abs() < 0.02, "{}", noise.late(1.0));
        assert!(noise.late(2.0) < 1e-3 && noise.late(0.3) > 0.999 && noise.late(-1.0) == 1.0);
    }

    #[test]
    fn tails_are_those_of_tables() {
        for (x, p) in [(0.0, 0.5), (1.0, 0.158655), (1.959964, 0.025), (-1.0, 0.841345)] {
            assert!((tail(x) - p).abs() < 1e-6, "{x}");
        }
    }
}
