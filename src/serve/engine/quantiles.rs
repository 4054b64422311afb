//! Quantiles of times in constant memory: bins of a sixteenth of an octave (HdrHistogram's layout, by Gil Tene), so a quantile is at most
//! a sixteenth too large.

use std::time::Duration;

/// Bins of an octave.
const PARTS: u64 = 16;
/// Bins for all of 64 bits.
const BINS: usize = 61 * PARTS as usize;

/// Counts of times, in nanoseconds, by bin.
#[derive(Debug, Clone)]
pub(in crate::serve) struct Histogram {
    bins: Box<[u64; BINS]>,
    total_ns: u128,
    max_ns: u64,
}

/// Times of one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Quantiles {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { bins: Box::new([0; BINS]), total_ns: 0, max_ns: 0 }
    }
}

fn bin(ns: u64) -> usize {
    let octave = (63 - (ns | PARTS).leading_zeros()) as u64 - PARTS.ilog2() as u64;
    (octave * PARTS + (ns >> octave)) as usize
}

/// The largest time of a bin.
fn upper_ns(bin: usize) -> u64 {
    let octave = (bin as u64 / PARTS).saturating_sub(1);
    let next = u128::from(bin as u64 - octave * PARTS + 1) << octave;
    (next - 1).min(u64::MAX.into()) as u64
}

impl Histogram {
    /// Counts a time `count` times.
    pub fn record(&mut self, time: Duration, count: u64) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.bins[bin(ns)] += count;
        self.total_ns += u128::from(ns) * u128::from(count);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Counts what another counted too.
    pub fn add(&mut self, other: &Histogram) {
        self.bins.iter_mut().zip(other.bins.iter()).for_each(|(own, more)| *own += more);
        self.total_ns += other.total_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// What was counted.
    pub fn quantiles(&self) -> Quantiles {
        let count: u64 = self.bins.iter().sum();
        let at = |share: f64| {
            let rank = (share * count as f64).ceil().max(1.0) as u64;
            let mut below = 0;
            let found = self.bins.iter().position(|n| {
                below += n;
                below >= rank
            });
            found.map_or(0.0, |bin| upper_ns(bin).min(self.max_ns) as f64 / 1e3)
        };
        let mean_us = self.total_ns as f64 / count.max(1) as f64 / 1e3;
        let max_us = self.max_ns as f64 / 1e3;
        Quantiles { count, mean_us, p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p999_us: at(0.999), max_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_what_they_say_and_are_a_sixteenth_wide() {
        for ns in (0..4096).chain((12..64).flat_map(|e| [1u64 << e, (1 << e) + 12345, u64::MAX >> (63 - e)])) {
            let upper = upper_ns(bin(ns));
            assert!(upper >= ns && upper - ns <= ns / PARTS, "{ns}: bin {} up to {upper}", bin(ns));
            assert!(bin(ns) == 0 || upper_ns(bin(ns) - 1) < ns, "{ns}");
        }
        assert_eq!(bin(u64::MAX), BINS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        (1..=1000u64).for_each(|us| histogram.record(Duration::from_micros(us), 1));
        let found = histogram.quantiles();
        for (at, exact) in [(found.p50_us, 500.0), (found.p90_us, 900.0), (found.p99_us, 990.0), (found.p999_us, 999.0)] {
            assert!(at >= exact && at <= exact * (1.0 + 1.0 / 16.0), "{at} for {exact}");
        }
        assert_eq!((found.count, found.mean_us, found.max_us), (1000, 500.5, 1000.0));
        assert_eq!(Histogram::default().quantiles(), Quantiles::default());
    }
}
