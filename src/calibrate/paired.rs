//! Two models' scores on the same questions.

/// Scores before and after a change, question by question: each between 0 (wrong) and 1 (right).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Paired {
    /// Questions.
    pub count: usize,
    /// Questions with a lower score after.
    pub worse: usize,
    /// Questions with a higher score after.
    pub better: usize,
    before: f64,
    after: f64,
    /// Of the drops.
    squares: f64,
    /// The largest change of a question's score.
    largest: f64,
    /// Scores that rarely change, and then by much.
    is_rare: bool,
}

/// Quantile of the normal distribution for two-sided 95 %.
const Z95: f64 = 1.959964;

impl Paired {
    /// Of no question. `is_rare`: most scores do not change, so that none that did so far says little about the next one (right or wrong, and
    /// the like); else all change a little.
    pub fn new(is_rare: bool) -> Self {
        Paired { is_rare, ..Paired::default() }
    }

    /// Adds a question.
    pub fn add(&mut self, before: f64, after: f64) {
        let drop = before - after;
        self.count += 1;
        self.worse += usize::from(drop > 0.0);
        self.better += usize::from(drop < 0.0);
        self.before += before;
        self.after += after;
        self.squares += drop * drop;
        self.largest = self.largest.max(drop.abs());
    }

    /// Mean scores before and after.
    pub fn scores(&self) -> [f64; 2] {
        [self.before, self.after].map(|sum| sum / self.count.max(1) as f64)
    }

    /// How much the mean score fell.
    pub fn drop(&self) -> f64 {
        (self.before - self.after) / self.count.max(1) as f64
    }

    /// The 95 % confidence interval of the drop, by Student's distribution, with two questions added: one whose score did not change, half of
    /// one that fell and half of one that rose by the largest change seen, which of rare changes is 1 before one was. Where scores are 0 or 1 it
    /// is that of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005.
    pub fn interval95(&self) -> [f64; 2] {
        let n = self.count as f64 + 2.0;
        let drop = (self.before - self.after) / n;
        let error = (self.squares + self.unseen().powi(2) - n * drop * drop).max(0.0).sqrt() / n;
        let width = student95(self.count) * error;
        [drop - width, drop + width]
    }

    /// About how many questions would show a drop of `budget` or less, if scores went on as here; `None` when no number would.
    pub fn needed(&self, budget: f64) -> Option<usize> {
        let (n, drop) = (self.count.max(1) as f64, self.drop());
        let spread = self.squares.max(self.unseen().powi(2)) / n - drop * drop;
        (drop < budget).then(|| ((Z95 / (budget - drop)).powi(2) * spread).ceil().max(n) as usize)
    }

    /// The fewest questions that can show a drop of `budget` or less where changes are rare: as many as do when no score changes.
    pub fn least(budget: f64) -> usize {
        let shows = |count: usize| Paired { count, ..Paired::new(true) }.interval95()[1] <= budget;
        let enough = (2..).map(|power| 1usize << power).find(|&n| n >= 1 << 30 || shows(n)).unwrap_or_default();
        let (mut few, mut enough) = (enough / 2, enough);
        while enough - few > 1 {
            let n = (few + enough) / 2;
            if shows(n) { enough = n } else { few = n }
        }
        enough
    }

    fn unseen(&self) -> f64 {
        if self.largest == 0.0 && self.is_rare { 1.0 } else { self.largest }
    }
}

/// Quantile of Student's distribution for two-sided 95 % and a mean of so many: Fisher's expansion of 1926, exact to 1 % from 5 on; infinite
/// below 3.
fn student95(count: usize) -> f64 {
    if count < 3 {
        return f64::INFINITY;
    }
    let (v, z) = (count as f64 - 1.0, Z95);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / v + second / (v * v) + third / (v * v * v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    /// So many right before and after, right before alone, right after alone, wrong both times.
    fn counts(each: [usize; 4]) -> Paired {
        let mut paired = Paired::new(true);
        for (count, (before, after)) in each.into_iter().zip([(1.0f64, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]) {
            (0..count).for_each(|_| paired.add(before, after));
        }
        paired
    }

    #[test]
    fn without_a_difference_the_interval_is_about_three_over_n() {
        let same = counts([590, 0, 0, 10]);
        let [low, high] = same.interval95();
        assert!(same.drop() == 0.0 && low < 0.0 && (0.002..0.005).contains(&high), "{low} {high}");
        assert!(same.needed(0.01).unwrap() <= 600 && counts([91, 9, 0, 10]).needed(0.01).is_none());
        let least = Paired::least(0.01);
        let ends = [least - 1, least].map(|n| counts([n, 0, 0, 0]).interval95()[1] <= 0.01);
        assert!(ends == [false, true] && (150..250).contains(&least), "{least}");
    }

    #[test]
    fn zeros_and_ones_give_the_interval_of_agresti_and_min() {
        // By hand: n = 502, lost 10.5, gained 4.5.
        let [low, high] = counts([450, 10, 4, 36]).interval95();
        let (drop, error) = (6.0 / 502.0, (15.0f64 - 36.0 / 502.0).sqrt() / 502.0);
        assert!((low - (drop - Z95 * error)).abs() < 1e-4 && (high - (drop + Z95 * error)).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn the_interval_holds_the_true_drop_as_often_as_it_says() {
        let mut r = Xorshift::new(4);
        for (lost, gained) in [(0.02, 0.01), (0.05, 0.0), (0.1, 0.1)] {
            let mut held = 0;
            for _ in 0..2000 {
                let mut p = Paired::new(true);
                for _ in 0..500 {
                    let u = r.unit();
                    let score = |right: bool| f64::from(u8::from(right));
                    p.add(score(u < lost || u >= lost + gained), score(u >= lost));
                }
                let [low, high] = p.interval95();
                held += usize::from((low..=high).contains(&(lost - gained)));
            }
            assert!((1860..=2000).contains(&held), "{lost} {gained}: {held} of 2000");
        }
        // Few questions, each a little worse: cosines.
        let mut held = 0;
        for _ in 0..2000 {
            let mut p = Paired::new(false);
            (0..8).for_each(|_| p.add(1.0, 1.0 - 0.004 * r.unit()));
            let [low, high] = p.interval95();
            held += usize::from((low..=high).contains(&0.002));
        }
        assert!((1880..=2000).contains(&held), "{held} of 2000");
    }

    #[test]
    fn students_quantiles_are_those_of_tables() {
        for (count, want) in [(5, 2.776), (11, 2.228), (31, 2.042), (1001, 1.962)] {
            assert!((student95(count) / want - 1.0).abs() < 0.01, "{count}: {}", student95(count));
        }
    }
}
