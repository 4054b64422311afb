//! Counts of what a scheduler did.

use super::request::{Batch, Rejection};

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Statistics {
    /// Requests that were offered: admitted or rejected.
    pub offered: u64,
    pub admitted: u64,
    pub cancelled: u64,
    /// Requests handed out in batches.
    pub run: u64,
    pub batches: u64,
    /// Rows of those batches.
    pub rows: u64,
    /// Elements of those batches by length, and those of them that are padding.
    pub elements: u64,
    pub padding: u64,
    /// Rejected at once or expelled later, by reason.
    pub queue_full: u64,
    pub too_late: u64,
    pub draining: u64,
    pub too_large: u64,
    pub empty: u64,
}

impl Statistics {
    pub(super) fn reject(&mut self, why: Rejection) -> Rejection {
        *match why {
            Rejection::QueueFull { .. } => &mut self.queue_full,
            Rejection::TooLate { .. } => &mut self.too_late,
            Rejection::Draining => &mut self.draining,
            Rejection::TooLarge { .. } => &mut self.too_large,
            Rejection::Empty => &mut self.empty,
        } += 1;
        why
    }

    /// Counts a batch of which `elements` are not padding.
    pub(super) fn ran(&mut self, batch: &Batch, elements: u64) {
        let all = u64::from(batch.rows) * u64::from(batch.length);
        self.run += batch.keys.len() as u64;
        self.batches += 1;
        self.rows += u64::from(batch.rows);
        self.elements += all;
        self.padding += all - elements;
    }

    /// Padding's share of all elements run.
    pub fn padding_share(&self) -> f64 {
        self.padding as f64 / self.elements.max(1) as f64
    }
}
