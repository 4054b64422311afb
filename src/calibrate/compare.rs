//! How far a changed model's answers are from the original's.

/// Differences added up over any number of tensors; takes the same memory for all of them.
#[derive(Debug, Clone, Default)]
pub struct Difference {
    /// Values compared.
    pub values: usize,
    /// Values that are the same number.
    pub equal: usize,
    /// Values that are finite in the original and not in the changed one.
    pub not_finite: usize,
    /// The largest difference of two values; infinite where one of them is not finite.
    pub max_abs: f64,
    /// The largest finite magnitude of the original.
    pub largest: f64,
    /// Rows of two values or more: the last axis.
    pub rows: usize,
    /// Rows whose largest value is at the same place.
    same_top: usize,
    /// Kullback-Leibler divergence of softmaxed rows, summed.
    divergence: f64,
    signal: f64,
    noise: f64,
    product: f64,
    energy: f64,
}

impl Difference {
    /// Adds a tensor as the original gives it and as the changed one does, with rows of `width` values.
    pub fn add<T: Copy + Into<f64>>(&mut self, original: &[T], changed: &[T], width: usize) {
        for (&a, &b) in original.iter().zip(changed) {
            self.pair(a.into(), b.into());
        }
        if width >= 2 {
            original.chunks_exact(width).zip(changed.chunks_exact(width)).for_each(|(a, b)| self.row(a, b));
        }
    }

    fn pair(&mut self, a: f64, b: f64) {
        self.values += 1;
        if a == b || (a.is_nan() && b.is_nan()) {
            self.equal += 1;
        } else {
            let difference = (a - b).abs();
            self.max_abs = if difference.is_nan() { f64::INFINITY } else { self.max_abs.max(difference) };
        }
        if a.is_finite() {
            self.largest = self.largest.max(a.abs());
            self.signal += a * a;
            self.not_finite += usize::from(!b.is_finite());
            if b.is_finite() {
                self.noise += (a - b) * (a - b);
                self.product += a * b;
                self.energy += b * b;
            }
        }
    }

    fn row<T: Copy + Into<f64>>(&mut self, a: &[T], b: &[T]) {
        self.rows += 1;
        self.same_top += usize::from(top(a) == top(b));
        let (a, b) = (log_softmax(a), log_softmax(b));
        self.divergence += a.iter().zip(&b).filter(|(a, _)| a.is_finite()).map(|(a, b)| a.exp() * (a - b)).sum::<f64>();
    }

    /// Signal to noise of the changed values in dB: infinite when all are equal, minus infinity when one is not finite any more.
    pub fn sqnr_db(&self) -> f64 {
        match (self.not_finite, self.noise) {
            (0, 0.0) => f64::INFINITY,
            (0, noise) => 10.0 * (self.signal / noise).log10(),
            _ => f64::NEG_INFINITY,
        }
    }

    /// Cosine of the angle between both; 1 when both are 0, 0 when a value is not finite any more.
    pub fn cosine(&self) -> f64 {
        match (self.not_finite, self.noise) {
            (0, 0.0) => 1.0,
            (0, _) => self.product / (self.signal * self.energy).sqrt().max(f64::MIN_POSITIVE),
            _ => 0.0,
        }
    }

    /// The largest difference over the largest magnitude of the original.
    pub fn max_relative(&self) -> f64 {
        if self.max_abs == 0.0 { 0.0 } else { self.max_abs / self.largest.max(f64::MIN_POSITIVE) }
    }

    /// Mean Kullback-Leibler divergence of softmaxed rows in nats, of the changed from the original; `None` without rows.
    pub fn divergence(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.divergence / self.rows as f64)
    }

    /// The share of rows whose largest value is at the same place; `None` without rows.
    pub fn top1_agreement(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.same_top as f64 / self.rows as f64)
    }

    /// The share of values that are the same number; 1 without values.
    pub fn equal_share(&self) -> f64 {
        if self.values == 0 { 1.0 } else { self.equal as f64 / self.values as f64 }
    }
}

/// Where the largest value is, the first of equal ones.
pub(super) fn top<T: Copy + Into<f64>>(row: &[T]) -> usize {
    let larger = |best: usize, i: usize| if row[i].into() > row[best].into() { i } else { best };
    (0..row.len()).fold(0, larger)
}

/// Logarithms of the softmax.
fn log_softmax<T: Copy + Into<f64>>(row: &[T]) -> Vec<f64> {
    let most = row.iter().map(|&v| v.into()).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|&v| (v.into() - most).exp()).sum();
    row.iter().map(|&v| v.into() - most - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(original: &[f32], changed: &[f32], width: usize) -> Difference {
        let mut d = Difference::default();
        d.add(original, changed, width);
        d
    }

    #[test]
    fn figures_are_those_of_their_definitions() {
        let d = difference(&[3.0, 4.0, 0.0, 5.0], &[3.0, 4.0, 0.5, 5.0], 2);
        assert!((d.sqnr_db() - 10.0 * (50.0f64 / 0.25).log10()).abs() < 1e-12, "{}", d.sqnr_db());
        assert!((d.cosine() - 50.0 / (50.0 * 50.25f64).sqrt()).abs() < 1e-12);
        assert_eq!((d.max_abs, d.max_relative(), d.equal_share(), d.rows), (0.5, 0.1, 0.75, 2));
        assert_eq!(d.top1_agreement(), Some(1.0));
        // Softmax of (0, 5) against that of (0.5, 5), by hand.
        let p = |x: f64, y: f64| [1.0 / (1.0 + (y - x).exp()), 1.0 / (1.0 + (x - y).exp())];
        let (a, b) = (p(0.0, 5.0), p(0.5, 5.0));
        let want = (a[0] * (a[0] / b[0]).ln() + a[1] * (a[1] / b[1]).ln()) / 2.0;
        assert!((d.divergence().unwrap() - want).abs() < 1e-12);
        assert_eq!(difference(&[1.0, 2.0], &[2.0, 1.0], 2).top1_agreement(), Some(0.0));
    }

    #[test]
    fn sums_do_not_depend_on_how_tensors_are_cut() {
        let (a, b): (Vec<f32>, Vec<f32>) =
            (0..64).map(|i| ((i as f32).sin(), (i as f32).sin() + 1e-3 * (i as f32).cos())).unzip();
        let whole = difference(&a, &b, 4);
        let mut parts = Difference::default();
        a.chunks(8).zip(b.chunks(8)).for_each(|(a, b)| parts.add(a, b, 4));
        assert!(
            (whole.sqnr_db() - parts.sqnr_db()).abs() < 1e-9 && (59.0..64.0).contains(&whole.sqnr_db()),
            "{}",
            whole.sqnr_db()
        );
        assert_eq!((whole.rows, whole.max_abs), (parts.rows, parts.max_abs));
    }

    #[test]
    fn what_is_not_finite_any_more_is_never_close() {
        let lost = difference(&[1.0, 2.0], &[1.0, f32::NAN], 0);
        assert_eq!((lost.sqnr_db(), lost.cosine(), lost.max_relative()), (f64::NEG_INFINITY, 0.0, f64::INFINITY));
        let same = difference(&[f32::NEG_INFINITY, f32::NAN, 1.0], &[f32::NEG_INFINITY, f32::NAN, 1.0], 3);
        assert_eq!((same.sqnr_db(), same.cosine(), same.max_abs, same.equal_share()), (f64::INFINITY, 1.0, 0.0, 1.0));
        let none = difference(&[], &[], 2);
        assert_eq!((none.sqnr_db(), none.cosine(), none.equal_share(), none.divergence()), (f64::INFINITY, 1.0, 1.0, None));
    }
}
