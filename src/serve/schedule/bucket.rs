//! Ranges of lengths: a batch within one range has at most the permitted share of padding.

/// Ranges with bounds that grow by a constant factor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    /// One over the logarithm of the factor; 0 where all lengths are one range.
    per_log: f64,
    last: (u32, u32),
}

impl Buckets {
    /// Ranges for a largest share of padding: where the longest is at most `1 / (1 - share)` times the shortest, padding is at most `share`.
    pub fn new(max_padding: f64) -> Buckets {
        let share = max_padding.clamp(0.0, 1.0);
        let per_log = if share >= 1.0 { 0.0 } else { -1.0 / (1.0 - share.max(1e-6)).ln() };
        Buckets { per_log, last: (1, 0) }
    }

    /// The range of a length.
    pub fn of(&mut self, length: u32) -> u32 {
        if self.last.0 != length {
            let bucket =
                if self.per_log == 0.0 { 0 } else { (f64::from(length.max(1)).ln() * self.per_log + 1e-9).floor() as u32 };
            self.last = (length, bucket);
        }
        self.last.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_within_a_range_stays_under_its_share() {
        for share in [0.01, 0.1, 0.25, 0.5, 0.9] {
            let mut buckets = Buckets::new(share);
            let (mut shortest, mut bucket) = (1, buckets.of(1));
            for length in 1..20_000 {
                if buckets.of(length) != bucket {
                    (shortest, bucket) = (length, buckets.of(length));
                }
                assert!(1.0 - f64::from(shortest) / f64::from(length) <= share + 1e-9, "{shortest} to {length} at {share}");
            }
        }
        assert_eq!(Buckets::new(1.0).of(1), Buckets::new(1.0).of(u32::MAX));
    }
}
