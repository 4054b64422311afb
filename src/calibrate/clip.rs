//! From what was observed to the range that integers cover.

use super::observe::Observed;

/// Steps of 8 bits.
const LEVELS: f64 = 255.0;
/// Bins of magnitudes that the entropy calibrator looks at, and levels that it compares with.
const MAGNITUDES: usize = 2048;
const ENTROPY_LEVELS: usize = 128;

/// How a range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Calibrator {
    /// All that was seen.
    MinMax,
    /// All but so many percent at either end, e.g. 99.99.
    Percentile(f64),
    /// The least expected squared error of rounding and cutting off.
    #[default]
    Mse,
    /// The least divergence between the values' distribution and the rounded one (KL; Migacz, "8-bit Inference with TensorRT", 2017).
    Entropy,
}

/// Smallest and largest value to cover; 0 lies between. (0, 0) when nothing was seen.
pub fn range(seen: &Observed, how: Calibrator) -> (f32, f32) {
    if seen.count() == 0 {
        return (0.0, 0.0);
    }
    let whole = (seen.min.min(0.0), seen.max.max(0.0));
    match how {
        Calibrator::MinMax => whole,
        Calibrator::Percentile(p) => percentile(seen, whole, p),
        Calibrator::Mse => least_error(seen, whole),
        Calibrator::Entropy => {
            let most = entropy(seen) as f32;
            (whole.0.max(-most), whole.1.min(most))
        }
    }
}

fn percentile(seen: &Observed, whole: (f32, f32), p: f64) -> (f32, f32) {
    let cut = (seen.count() as f64 * (1.0 - p.clamp(0.0, 100.0) / 100.0)).floor() as u64;
    let half = seen.bin_width() / 2.0;
    let low = first_past(seen.bins(), cut).map_or(whole.0, |m| (m - half) as f32);
    let high = first_past(seen.bins().rev(), cut).map_or(whole.1, |m| (m + half) as f32);
    (low.clamp(whole.0, 0.0), high.clamp(0.0, whole.1))
}

/// The middle of the first bin that takes the values passed over `cut`.
fn first_past(mut bins: impl Iterator<Item = (f64, u64)>, cut: u64) -> Option<f64> {
    let mut passed = 0;
    let found = bins.find(|(_, n)| {
        passed += n;
        passed > cut
    });
    found.map(|(middle, _)| middle)
}

/// Expected squared error of all values with this range: a uniform one inside (zeros are exact), the distance outside.
fn error(seen: &Observed, low: f64, high: f64) -> f64 {
    let inside = ((high - low) / LEVELS).powi(2) / 12.0;
    let each = |(x, n): (f64, u64)| match x {
        _ if x > high => n as f64 * (x - high).powi(2),
        _ if x < low => n as f64 * (x - low).powi(2),
        _ => n as f64 * inside,
    };
    rounded(seen).map(each).sum()
}

/// The bins but that of zeros, which are exact whatever the range.
fn rounded(seen: &Observed) -> impl Iterator<Item = (f64, u64)> {
    let width = seen.bin_width();
    seen.bins().filter(move |&(x, _)| !(0.0..width).contains(&x))
}

/// Each end moved inwards in turn, as long as that helps.
fn least_error(seen: &Observed, whole: (f32, f32)) -> (f32, f32) {
    let (whole, shares) = ((f64::from(whole.0), f64::from(whole.1)), (1..=100).map(|i| f64::from(i) / 100.0));
    let (mut low, mut high) = whole;
    let best = |of: &dyn Fn(f64) -> f64| {
        let each = shares.clone().map(|s| (of(s), s));
        each.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |(_, s)| s)
    };
    for _ in 0..3 {
        high = whole.1 * best(&|s| error(seen, low, whole.1 * s));
        low = whole.0 * best(&|s| error(seen, whole.0 * s, high));
    }
    (low as f32, high as f32)
}

/// The magnitude at which cutting off loses least information.
fn entropy(seen: &Observed) -> f64 {
    let most = f64::from(seen.max.max(-seen.min));
    let mut counts = vec![0f64; MAGNITUDES];
    for (x, n) in rounded(seen) {
        let bin = (x.abs() / most * MAGNITUDES as f64) as usize;
        counts[bin.min(MAGNITUDES - 1)] += n as f64;
    }
    let all = (ENTROPY_LEVELS..=MAGNITUDES).step_by(16).map(|kept| (divergence(&counts, kept), kept));
    let kept = all.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(MAGNITUDES, |(_, kept)| kept);
    most * kept as f64 / MAGNITUDES as f64
}

/// KL divergence of the distribution cut off after `kept` bins from the same in [`ENTROPY_LEVELS`] levels.
fn divergence(counts: &[f64], kept: usize) -> f64 {
    let total: f64 = counts.iter().sum();
    let outside: f64 = counts[kept..].iter().sum();
    let mut sum = 0.0;
    for level in 0..ENTROPY_LEVELS {
        let bins = level * kept / ENTROPY_LEVELS..(level + 1) * kept / ENTROPY_LEVELS;
        let own = &counts[bins.clone()];
        let filled = own.iter().filter(|&&n| n > 0.0).count() as f64;
        let mean = own.iter().sum::<f64>() / filled.max(1.0);
        for (bin, &n) in bins.zip(own) {
            let p = n + if bin + 1 == kept { outside } else { 0.0 };
            if p > 0.0 {
                // What lies outside has no level of its own where the last bin was empty.
                sum += p / total * (p / mean.max(1e-9 * total)).ln();
            }
        }
    }
    // Both distributions sum to one: the rounded one lacks what was outside.
    sum + ((total - outside) / total).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    fn seen(values: &[f32]) -> Observed {
        let mut seen = Observed::default();
        seen.add(values);
        seen
    }

    /// Squared error of rounding to 256 levels over a range.
    fn real_error(values: &[f32], (low, high): (f32, f32)) -> f64 {
        let scale = (high - low) / 255.0;
        let zero = (-low / scale).round();
        let back = |v: f32| (((v / scale).round() + zero).clamp(0.0, 255.0) - zero) * scale;
        values.iter().map(|&v| f64::from(v - back(v)).powi(2)).sum()
    }

    #[test]
    fn every_calibrator_covers_a_flat_distribution() {
        let values: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 500.0 - 1.0).collect();
        let seen = seen(&values);
        for how in [Calibrator::MinMax, Calibrator::Percentile(99.9), Calibrator::Mse, Calibrator::Entropy] {
            let (low, high) = range(&seen, how);
            assert!((-1.0..-0.95).contains(&low) && (0.95..=1.0).contains(&high), "{how:?}: {low} {high}");
        }
    }

    #[test]
    fn rare_outliers_are_cut_off_where_that_pays() {
        let mut r = Xorshift::new(5);
        let mut values: Vec<f32> = (0..100_000).map(|_| (0..6).map(|_| r.real()).sum::<f32>()).collect();
        values.extend([200.0, -150.0]);
        let seen = seen(&values);
        assert_eq!(range(&seen, Calibrator::MinMax), (-150.0, 200.0));
        for how in [Calibrator::Percentile(99.99), Calibrator::Entropy] {
            let (low, high) = range(&seen, how);
            assert!((-80.0..-1.0).contains(&low) && (1.0..80.0).contains(&high), "{how:?}: {low} {high}");
        }
        let (cut, whole) = (range(&seen, Calibrator::Mse), range(&seen, Calibrator::MinMax));
        assert!(real_error(&values, cut) <= real_error(&values, whole));
        // Without outliers of such size little is cut, and never to the worse.
        let (plain, n) = (&values[..100_000], 100_000);
        let (cut, whole) = (range(&self::seen(plain), Calibrator::Mse), range(&self::seen(plain), Calibrator::MinMax));
        assert!(real_error(plain, cut) <= real_error(plain, whole) * 1.001 && n == plain.len());
    }

    #[test]
    fn zeros_say_nothing_about_where_to_cut() {
        let mut r = Xorshift::new(8);
        let mut values: Vec<f32> = (0..50_000).map(|_| (0..4).map(|_| r.real().abs()).sum::<f32>() + 0.1).collect();
        values.push(60.0);
        let of = |values: &[f32]| [Calibrator::Mse, Calibrator::Entropy].map(|how| range(&seen(values), how));
        let without = of(&values);
        assert!(without[1].1 < 30.0, "{without:?}");
        values.resize(550_001, 0.0);
        assert_eq!(of(&values), without);
    }

    #[test]
    fn positive_values_keep_zero_at_the_end() {
        let seen = seen(&[0.0, 1.0, 2.0, 3.0]);
        assert!([Calibrator::MinMax, Calibrator::Mse, Calibrator::Entropy].iter().all(|&how| range(&seen, how).0 == 0.0));
        assert_eq!(range(&Observed::default(), Calibrator::Mse), (0.0, 0.0));
        assert_eq!(range(&self::seen(&[0.0; 9]), Calibrator::Entropy), (0.0, 0.0));
    }
}
