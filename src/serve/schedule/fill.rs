//! A batch as it fills: rows, padding, and the first deadline.

use super::decide::left_s;
use crate::serve::policy::{Latency, margin};

/// What a batch holds so far, and its limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filling {
    max_rows: u32,
    max_padding: f64,
    pub rows: u32,
    pub longest: u32,
    /// Elements that are not padding.
    pub elements: u64,
    first_due_ns: u64,
}

impl Filling {
    pub fn new(max_rows: u32, max_padding: f64) -> Filling {
        Filling { max_rows, max_padding, rows: 0, longest: 0, elements: 0, first_due_ns: u64::MAX }
    }

    /// Whether there is room for rows of this length, and padding stays within its share. There always is for the first.
    pub fn takes(&self, rows: u32, length: u32) -> bool {
        let all = u64::from(self.rows + rows) * u64::from(self.longest.max(length));
        let own = self.elements + u64::from(rows) * u64::from(length);
        self.rows == 0 || self.rows + rows <= self.max_rows && (all - own) as f64 <= self.max_padding.max(0.0) * all as f64
    }

    /// Whether with these rows the first deadline in the batch still holds with a margin.
    pub fn in_time(&self, rows: u32, length: u32, now_ns: u64, latency: &Latency) -> bool {
        latency.expected_s(self.rows + rows, self.longest.max(length)) * margin(&latency.noise)
            <= left_s(self.first_due_ns, now_ns)
    }

    pub fn add(&mut self, rows: u32, length: u32, due_ns: u64) {
        self.rows += rows;
        self.longest = self.longest.max(length);
        self.elements += u64::from(rows) * u64::from(length);
        self.first_due_ns = self.first_due_ns.min(due_ns);
    }
}
