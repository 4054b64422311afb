//! Expected times of all sizes of a batch, and which sizes are worth their time.

use super::latency::{Latency, Shape};

/// Expected seconds by rows, and the sizes that a plan asks for.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    version: Option<(u32, u32)>,
    times: Vec<f64>,
    /// For a bound on rows, the size up to it that runs the most rows a second.
    best: Vec<u32>,
    /// The most rows a second among batches that leave room to wait for one of their like.
    pub rate: f64,
    /// The most rows of a batch that fits into the target.
    pub most: u32,
    /// The fewest rows that run at each of `SHARES` of the best rate.
    pub floors: [u32; 3],
    step: u32,
}

/// Shares of the best rate below which a batch is small: when time is to be had, when it is short, and when there is too little.
const SHARES: [f64; 3] = [0.5, 0.9, 0.98];

impl Curve {
    /// Brings it up to date with a model of latency, for batches of `max` rows of `length` and answers due within `target_s`.
    pub fn update(&mut self, latency: &Latency, max: u32, length: u32, target_s: f64) {
        let version = Some((latency.version(), max));
        if self.version == version && self.times.len() == max as usize + 1 {
            return;
        }
        self.version = version;
        self.times.clear();
        self.times.extend((0..=max).map(|rows| latency.expected_s(rows.max(1), length).max(1e-9)));
        self.best.clear();
        let mut best = 0;
        for rows in 0..=max {
            if best == 0 || self.speed(rows) >= 0.999 * self.speed(best) {
                best = rows;
            }
            self.best.push(best);
        }
        let within = |share: f64| self.times.partition_point(|&t| t <= share * target_s).saturating_sub(1).max(1) as u32;
        let half = within(0.5).min(max);
        self.most = within(0.9).min(max);
        self.rate = self.speed(self.best(half));
        self.floors = SHARES.map(|share| self.floor(share));
        self.step = match latency.shape() {
            Shape::Tile(tile) => tile,
            Shape::PowerOfTwo => 1,
        };
    }

    /// Rows that make a step of time.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// The largest size known.
    pub fn longest(&self) -> u32 {
        self.times.len() as u32 - 1
    }

    /// Expected seconds of a batch of `rows`, at most the largest.
    pub fn time(&self, rows: u32) -> f64 {
        self.times[rows as usize]
    }

    /// Rows a second.
    fn speed(&self, rows: u32) -> f64 {
        f64::from(rows) / self.times[rows as usize]
    }

    /// The size up to `rows` that runs the most rows a second.
    pub fn best(&self, rows: u32) -> u32 {
        self.best[rows as usize].max(1)
    }

    fn floor(&self, share: f64) -> u32 {
        (1..=self.most).find(|&rows| self.speed(rows) >= share * self.rate).unwrap_or(self.most)
    }

    /// The most rows, up to `bound`, that take at most `seconds`; 0 when none does.
    pub fn fit(&self, seconds: f64, bound: u32) -> u32 {
        let bound = bound.min(self.longest());
        if self.times[bound as usize] <= seconds {
            return bound;
        }
        self.times[1..=bound as usize].partition_point(|&t| t <= seconds) as u32
    }
}
