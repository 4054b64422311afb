//! A device whose batches take a known time.

/// Batch times: `base + row * rows`, rows rounded up to tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Device {
    pub name: &'static str,
    pub base_s: f64,
    pub row_s: f64,
    pub tile: usize,
    pub max_batch: usize,
}

impl Device {
    /// The devices of the comparison: a GPU with expensive batches, one with tiles of 16 rows, and a CPU.
    pub const ALL: [Device; 3] = [
        Device { name: "gpu 2 + 0.05 n ms", base_s: 2e-3, row_s: 0.05e-3, tile: 1, max_batch: 64 },
        Device { name: "gpu 1 + 0.1 n ms, tiles of 16", base_s: 1e-3, row_s: 0.1e-3, tile: 16, max_batch: 64 },
        Device { name: "cpu 0.5 + 1 n ms", base_s: 0.5e-3, row_s: 1e-3, tile: 1, max_batch: 32 },
    ];

    /// Seconds for a batch of so many rows.
    pub fn time_s(&self, rows: usize) -> f64 {
        self.base_s + self.row_s * (rows.div_ceil(self.tile) * self.tile) as f64
    }

    /// Rows a second in the largest batches.
    pub fn capacity(&self) -> f64 {
        self.max_batch as f64 / self.time_s(self.max_batch)
    }
}
