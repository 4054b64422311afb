//! Two models' answers to the same questions.

/// How many questions were answered right by both models, by one of them, by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Paired {
    /// Right before and after.
    pub both: usize,
    /// Right before alone.
    pub lost: usize,
    /// Right after alone.
    pub gained: usize,
    /// Wrong before and after.
    pub neither: usize,
}

/// Quantile of the normal distribution for two-sided 95 %.
const Z95: f64 = 1.959964;

impl Paired {
    /// Adds a question.
    pub fn add(&mut self, before: bool, after: bool) {
        match (before, after) {
            (true, true) => self.both += 1,
            (true, false) => self.lost += 1,
            (false, true) => self.gained += 1,
            (false, false) => self.neither += 1,
        }
    }

    /// Questions.
    pub fn count(&self) -> usize {
        self.both + self.lost + self.gained + self.neither
    }

    /// The share of right answers before and after.
    pub fn shares(&self) -> [f64; 2] {
        [self.both + self.lost, self.both + self.gained].map(|n| n as f64 / self.count().max(1) as f64)
    }

    /// How much the share of right answers fell.
    pub fn drop(&self) -> f64 {
        (self.lost as f64 - self.gained as f64) / self.count().max(1) as f64
    }

    /// The 95 % confidence interval of the drop, for paired proportions with half a question added to each outcome (Agresti and Min,
    /// "Simple improved confidence intervals for comparing matched proportions", 2005).
    pub fn interval95(&self) -> [f64; 2] {
        let n = self.count() as f64 + 2.0;
        let (lost, gained) = (self.lost as f64 + 0.5, self.gained as f64 + 0.5);
        let drop = (lost - gained) / n;
        let error = (lost + gained - n * drop * drop).max(0.0).sqrt() / n;
        [drop - Z95 * error, drop + Z95 * error]
    }

    /// About how many questions would show a drop of `budget` or less, if answers went on as here; `None` when no number would.
    pub fn needed(&self, budget: f64) -> Option<usize> {
        let drop = self.drop();
        let spread = (self.lost + self.gained).max(1) as f64 / self.count().max(1) as f64;
        (drop < budget).then(|| (Z95 * Z95 * spread / ((budget - drop) * (budget - drop))).ceil() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn without_a_difference_the_interval_is_about_three_over_n() {
        let same = Paired { both: 590, neither: 10, ..Paired::default() };
        let [low, high] = same.interval95();
        assert!(same.drop() == 0.0 && low < 0.0 && (0.002..0.005).contains(&high), "{low} {high}");
        assert!(same.needed(0.01).unwrap() < 600 && Paired { lost: 9, both: 91, ..same }.needed(0.01).is_none());
    }

    #[test]
    fn the_interval_holds_the_true_drop_as_often_as_it_says() {
        let mut r = Xorshift::new(4);
        for (lost, gained) in [(0.02, 0.01), (0.05, 0.0), (0.1, 0.1)] {
            let mut held = 0;
            for _ in 0..2000 {
                let mut p = Paired::default();
                for _ in 0..500 {
                    let u = r.unit();
                    p.add(u < lost || u >= lost + gained, u >= lost);
                }
                let [low, high] = p.interval95();
                held += usize::from((low..=high).contains(&(lost - gained)));
            }
            assert!((1860..=2000).contains(&held), "{lost} {gained}: {held} of 2000");
        }
    }
}
