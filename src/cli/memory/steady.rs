//! Whether a figure grows: its highest values over a series of samples of unknown length.

/// Parts of the series that are kept.
const PARTS: usize = 1024;

/// The highest values of equal parts of the series, at most `PARTS`.
#[derive(Debug, Default)]
pub struct Maxima {
    highest: Vec<u64>,
    /// Samples of a part, but for the last.
    length: u64,
    samples: u64,
}

/// The highest value in each half of the series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Halves {
    pub first_bytes: u64,
    pub second_bytes: u64,
}

impl Maxima {
    /// The next sample.
    pub fn push(&mut self, value: u64) {
        self.length = self.length.max(1);
        if self.samples.is_multiple_of(self.length) {
            if self.highest.len() == PARTS {
                self.highest = self.highest.chunks(2).map(|pair| pair.iter().copied().max().unwrap_or(0)).collect();
                self.length *= 2;
            }
            self.highest.push(value);
        } else if let Some(last) = self.highest.last_mut() {
            *last = value.max(*last);
        }
        self.samples += 1;
    }

    /// Of the parts so far; nothing of fewer than two.
    pub fn halves(&self) -> Option<Halves> {
        let (first, second) = self.highest.split_at(self.highest.len() / 2);
        Some(Halves { first_bytes: *first.iter().max()?, second_bytes: *second.iter().max()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(samples: impl Iterator<Item = u64>) -> Option<(u64, u64)> {
        let mut maxima = Maxima::default();
        samples.for_each(|s| maxima.push(s));
        assert!(maxima.highest.len() <= PARTS);
        maxima.halves().map(|h| (h.first_bytes, h.second_bytes))
    }

    #[test]
    fn the_halves_of_any_series_have_their_maxima() {
        assert_eq!(halves([].into_iter()), None);
        assert_eq!(halves([5].into_iter()), None);
        assert_eq!(halves([5, 4].into_iter()), Some((5, 4)));
        for n in [10, 1023, 1024, 1025, 5000, 100_000u64] {
            let (first, second) = halves(0..n).unwrap();
            assert_eq!(second, n - 1);
            assert!(first.abs_diff(n / 2) <= n / 500 + 1, "{n}: {first}");
        }
        let spike = |at: u64| (0..50_000).map(move |i| if i == at { 9 } else { 1 });
        assert_eq!((halves(spike(77)), halves(spike(49_999))), (Some((9, 1)), Some((1, 9))));
    }
}
