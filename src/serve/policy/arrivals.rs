//! The rate at which rows arrive, over a short time and over a long one.

/// The window within which a burst is a burst, in target latencies.
const SHORT: f64 = 2.5;
/// The window over which the device's load is judged.
const LONG: f64 = 5.0;

/// Rates with exponential windows. Times are seconds since the scheduler's start.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    window_s: f64,
    last_s: f64,
    short: f64,
    long: f64,
}

impl Arrivals {
    /// Nothing has arrived; windows are multiples of a latency.
    pub fn new(target_s: f64) -> Arrivals {
        Arrivals { window_s: target_s.max(1e-6), last_s: 0.0, short: 0.0, long: 0.0 }
    }

    fn decayed(&self, now_s: f64) -> (f64, f64) {
        let gone = (now_s - self.last_s).max(0.0) / self.window_s;
        (self.short * (-gone / SHORT).exp(), self.long * (-gone / LONG).exp())
    }

    /// Counts rows that arrive.
    pub fn add(&mut self, now_s: f64, rows: f64) {
        let (short, long) = if now_s > self.last_s { self.decayed(now_s) } else { (self.short, self.long) };
        (self.short, self.long) = (short + rows / (SHORT * self.window_s), long + rows / (LONG * self.window_s));
        self.last_s = self.last_s.max(now_s);
    }

    /// Rows per second over the short window.
    pub fn short(&self, now_s: f64) -> f64 {
        self.decayed(now_s).0
    }

    /// Rows per second over the long window.
    pub fn long(&self, now_s: f64) -> f64 {
        self.decayed(now_s).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten() {
        let mut arrivals = Arrivals::new(0.02);
        (0..2000).for_each(|i| arrivals.add(f64::from(i) * 1e-3, 2.0));
        assert!((arrivals.short(2.0) / 2000.0 - 1.0).abs() < 0.05, "{}", arrivals.short(2.0));
        assert!((arrivals.long(2.0) / 2000.0 - 1.0).abs() < 0.05);
        assert!(arrivals.short(3.0) < 1.0 && arrivals.long(3.0) < 1.0);
    }
}
