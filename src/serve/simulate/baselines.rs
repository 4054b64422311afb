//! What others do, as far as their papers and sources tell, to be compared with. Requests are alike and served in order of arrival.

use std::collections::VecDeque;

use super::device::Device;

/// What a baseline does now.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Move {
    /// Give up the first, and run those that follow; nothing when `run` is 0.
    Run { give_up: usize, run: usize },
    /// Wait for this long or for the next arrival.
    Wait { seconds: f64 },
}

/// A baseline with its state.
#[derive(Debug, Clone)]
pub enum Baseline {
    /// Each request for itself.
    Single,
    /// What came within a time of the first (TensorFlow Serving, Triton with a delay).
    #[allow(missing_docs)]
    Window { seconds: f64 },
    /// All that waits (text-embeddings-inference, Triton without a delay).
    Greedy,
    /// Additive increase and multiplicative decrease of the batch by the target (Crankshaw et al., Clipper, NSDI 2017).
    #[allow(missing_docs)]
    Aimd { size: f64 },
    /// The largest batch that the first request's deadline allows, those that cannot make it dropped (Shen et al., Nexus, SOSP 2019). It is given the device's
    /// times, with a margin.
    #[allow(missing_docs)]
    Nexus { margin: f64 },
    /// BentoML's dispatcher: a regression over the last 50 batches, waiting while that should pay.
    Cork(Box<Cork>),
}

/// State of BentoML's dispatcher.
#[derive(Debug, Clone)]
pub struct Cork {
    row_s: f64,
    base_s: f64,
    wait_s: f64,
    recent: VecDeque<[f64; 3]>,
    fitted_s: f64,
}

impl Cork {
    /// As it starts for a target.
    pub fn new(target_s: f64) -> Cork {
        Cork {
            row_s: target_s * 2.0 / 30.0,
            base_s: target_s / 30.0,
            wait_s: 0.0,
            recent: VecDeque::new(),
            fitted_s: f64::NEG_INFINITY,
        }
    }

    fn decide(&self, queue: &[f64], now_s: f64, device: &Device, target_s: f64) -> Move {
        let waiting = queue.len();
        let (first_s, last_s) = (now_s - queue[0], now_s - queue[waiting - 1]);
        if waiting > 1 && first_s + self.row_s * waiting as f64 + self.base_s >= target_s {
            return Move::Run { give_up: 1, run: 0 };
        }
        if waiting < device.max_batch && waiting as f64 * (last_s + 1e-3 + self.row_s) <= 0.95 * self.wait_s {
            return Move::Wait { seconds: 1e-3 };
        }
        Move::Run { give_up: 0, run: waiting.min(device.max_batch) }
    }

    fn learn(&mut self, rows: usize, took_s: f64, waited_s: f64, now_s: f64) {
        self.recent.push_back([rows as f64, took_s, waited_s]);
        if self.recent.len() > 50 {
            self.recent.pop_front();
        }
        if now_s - self.fitted_s <= 5.0 && self.recent.len() >= 12 {
            return;
        }
        self.fitted_s = now_s;
        let count = self.recent.len() as f64;
        let sum = |f: fn(&[f64; 3]) -> f64| self.recent.iter().map(f).sum::<f64>();
        let (x, xx, y, xy) = (sum(|s| s[0]), sum(|s| s[0] * s[0]), sum(|s| s[1]), sum(|s| s[0] * s[1]));
        let spread = count * xx - x * x;
        if spread.abs() > 1e-9 {
            self.row_s = ((count * xy - x * y) / spread).max(1e-6);
            self.base_s = ((y - self.row_s * x) / count).max(0.0);
        } else {
            let (mean, rows) = (y / count, x / count);
            (self.row_s, self.base_s) = (mean * rows / (rows * rows + 1.0), mean / (rows * rows + 1.0));
        }
        self.wait_s = sum(|s| s[2]) / count;
    }
}

impl Baseline {
    /// What it does with what arrived at these times.
    pub fn decide(&mut self, queue: &[f64], now_s: f64, device: &Device, target_s: f64) -> Move {
        let run = |rows: usize| Move::Run { give_up: 0, run: queue.len().min(rows) };
        match self {
            Baseline::Single => run(1),
            Baseline::Greedy => run(device.max_batch),
            Baseline::Window { seconds } if queue.len() < device.max_batch && now_s - queue[0] < *seconds - 1e-12 => {
                Move::Wait { seconds: queue[0] + *seconds - now_s }
            }
            Baseline::Window { .. } => run(device.max_batch),
            Baseline::Aimd { size } => run((*size as usize).clamp(1, device.max_batch)),
            Baseline::Nexus { margin } => {
                let left = |i: usize| queue[i] + target_s - now_s;
                let give_up = (0..queue.len()).find(|&i| left(i) >= *margin * device.time_s(1)).unwrap_or(queue.len());
                let most = (queue.len() - give_up).min(device.max_batch);
                let fits = |rows: &usize| *rows == 1 || *margin * device.time_s(*rows) <= left(give_up);
                Move::Run { give_up, run: (1..=most).take_while(fits).count() }
            }
            Baseline::Cork(cork) => cork.decide(queue, now_s, device, target_s),
        }
    }

    /// Learns from a batch that ended at `now_s` and whose first request had waited for `waited_s`.
    pub fn finished(&mut self, rows: usize, took_s: f64, waited_s: f64, now_s: f64, target_s: f64) {
        match self {
            Baseline::Aimd { size } if took_s > 0.5 * target_s || waited_s + took_s > target_s => *size = (*size * 0.9).max(1.0),
            Baseline::Aimd { size } if rows as f64 >= size.floor() => *size += 1.0,
            Baseline::Cork(cork) => cork.learn(rows, took_s, waited_s, now_s),
            _ => {}
        }
    }
}
