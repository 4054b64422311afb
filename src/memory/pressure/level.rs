//! Levels of pressure, with hysteresis, from readings of the device and the budget of the process.

use crate::hardware::nvml::Reading;

/// How short memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[allow(missing_docs)]
pub enum Level {
    #[default]
    Low,
    Medium,
    High,
    Critical,
}

impl Level {
    /// All, from the lowest.
    pub const ALL: [Level; 4] = [Level::Low, Level::Medium, Level::High, Level::Critical];
}

/// Shares of memory in use at which the level changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// From which on the level is medium, high and critical.
    pub rise: [f64; 3],
    /// How far below that the share has to be before the level falls again.
    pub margin: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { rise: [0.70, 0.85, 0.95], margin: 0.05 }
    }
}

impl Thresholds {
    fn level(&self, share: f64, margin: f64) -> Level {
        Level::ALL[self.rise.iter().filter(|&&rise| share >= rise - margin).count()]
    }
}

/// What a pool has taken of the device and of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes taken from the device.
    pub reserved_bytes: u64,
    /// Bytes of the budget that blocks hold.
    pub used_bytes: u64,
    /// The most that they may hold.
    pub budget_bytes: u64,
    /// Allocations so far that the pool found no memory for by itself.
    pub failures: u64,
}

/// Bytes in use beyond what ends the level high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Excess {
    pub device_bytes: u64,
    pub budget_bytes: u64,
}

/// The level, sample by sample.
#[derive(Debug, Clone, Default)]
pub struct Gauge {
    thresholds: Thresholds,
    level: Level,
    /// Bytes of the device in use by others at the last sample.
    outside_bytes: Option<u64>,
    failures: Option<u64>,
}

impl Gauge {
    /// Starts at the lowest level.
    pub fn new(thresholds: Thresholds) -> Self {
        Gauge { thresholds, ..Gauge::default() }
    }

    /// The level after the last sample.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The level after this sample, of the fuller of device and budget, and what is in use beyond high. What others
    /// took of the device since the last sample counts twice: as if they took as much again until the next. An allocation that
    /// failed is critical. Without the device's memory the budget alone decides.
    pub fn next(&mut self, reading: &Reading, usage: &Usage) -> (Level, Excess) {
        let device = self.device(reading, usage);
        let budget = (usage.used_bytes, usage.budget_bytes);
        let share = share(device).max(share(budget));
        let held = self.level.min(self.thresholds.level(share, self.thresholds.margin));
        let failed = self.failures.replace(usage.failures).is_some_and(|before| usage.failures > before);
        self.level = if failed { Level::Critical } else { self.thresholds.level(share, 0.0).max(held) };
        let most = self.thresholds.rise[1] - self.thresholds.margin;
        let beyond = |(used, all): (u64, u64)| used.saturating_sub((all as f64 * most).round() as u64);
        (self.level, Excess { device_bytes: beyond(device), budget_bytes: beyond(budget) })
    }

    /// Bytes in use by the next sample, and all bytes.
    fn device(&mut self, reading: &Reading, usage: &Usage) -> (u64, u64) {
        let Ok(memory) = &reading.memory else { return (0, 0) };
        let used = memory.total_bytes.saturating_sub(memory.free_bytes);
        let outside = used.saturating_sub(usage.reserved_bytes);
        let grown = self.outside_bytes.replace(outside).map_or(0, |before| outside.saturating_sub(before));
        (used.saturating_add(grown).min(memory.total_bytes), memory.total_bytes)
    }
}

fn share((used, all): (u64, u64)) -> f64 {
    if all == 0 { 0.0 } else { used as f64 / all as f64 }
}

/// What a pool does about its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Give back what has been idle for long (`Pool::maintain`).
    Maintain,
    /// Give back all that is idle.
    TrimAll,
    /// Ask the owner to run fewer items at once.
    ShrinkBatch,
    /// Ask the owner on all rungs of the ladder until enough is free.
    Relieve,
}

/// What is done after a sample: all of it when the level rises, upkeep while it stays.
pub fn actions(before: Level, now: Level) -> &'static [Action] {
    use Action::*;
    match now {
        Level::Low => &[],
        Level::High if before < now => &[TrimAll, ShrinkBatch],
        Level::Critical if before < now => &[TrimAll, ShrinkBatch, Relieve],
        _ => &[Maintain],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::nvml::{Absent, Memory};

    /// A device of 1000 bytes with so many free.
    fn free(free_bytes: u64) -> Reading {
        let memory = Memory { total_bytes: 1000, free_bytes, used_bytes: 1000 - free_bytes, reserved_bytes: None };
        Reading { memory: Ok(memory), ..Reading::absent(Absent::NotAsked) }
    }

    /// All of what is in use is the pool's own.
    fn own(free_bytes: u64) -> Usage {
        Usage { reserved_bytes: 1000 - free_bytes, budget_bytes: u64::MAX, ..Usage::default() }
    }

    fn levels(samples: &[(Reading, Usage)]) -> Vec<Level> {
        let mut gauge = Gauge::new(Thresholds::default());
        samples.iter().map(|(reading, usage)| gauge.next(reading, usage).0).collect()
    }

    use Level::*;

    #[test]
    fn levels_rise_at_the_thresholds_and_fall_below_the_margin() {
        let recorded = [301, 300, 340, 349, 351, 150, 190, 201, 50, 99, 101, 1000].map(|f| (free(f), own(f)));
        let expected = [Low, Medium, Medium, Medium, Low, High, High, Medium, Critical, Critical, High, Low];
        assert_eq!(levels(&recorded), expected);
    }

    #[test]
    fn a_share_that_swings_within_the_margin_changes_nothing() {
        let swing: Vec<_> = (0..100).map(|i| if i % 2 == 0 { 149 } else { 190 }).map(|f| (free(f), own(f))).collect();
        assert!(levels(&swing).iter().all(|l| *l == High));
    }

    #[test]
    fn the_fuller_of_device_and_budget_decides() {
        let usage = |used_bytes| Usage { used_bytes, budget_bytes: 100, ..own(900) };
        let recorded = [(free(900), usage(10)), (free(900), usage(86)), (free(40), usage(10))];
        assert_eq!(levels(&recorded), [Low, High, Critical]);
        let unread = Reading::absent(Absent::NotSupported);
        assert_eq!(levels(&[(unread.clone(), usage(96)), (unread, usage(0))]), [Critical, Low], "the budget alone");
        assert_eq!(levels(&[(free(500), Usage::default())]), [Low], "no budget");
    }

    #[test]
    fn memory_that_others_take_raises_the_level_ahead_of_time() {
        let pool = Usage { reserved_bytes: 300, ..own(0) };
        assert_eq!(levels(&[(free(600), pool), (free(450), pool), (free(450), pool)]), [Low, Medium, Low]);
        let grows = |f| (free(f), own(f));
        assert_eq!(levels(&[grows(600), grows(450)]), [Low, Low], "its own growth does not");
    }

    #[test]
    fn a_failed_allocation_is_critical_once() {
        let usage = |failures| Usage { failures, ..own(900) };
        let recorded = [7, 7, 8, 8].map(|n| (free(900), usage(n)));
        assert_eq!(levels(&recorded), [Low, Low, Critical, Low], "those before the first sample are past");
    }

    #[test]
    fn the_excess_is_what_ends_the_level_high() {
        let mut gauge = Gauge::new(Thresholds::default());
        let usage = Usage { used_bytes: 90, budget_bytes: 100, ..own(30) };
        assert_eq!(gauge.next(&free(30), &usage).1, Excess { device_bytes: 170, budget_bytes: 10 });
    }

    #[test]
    fn a_rise_over_several_levels_does_what_the_highest_asks() {
        use Action::*;
        assert_eq!(actions(Low, Critical), [TrimAll, ShrinkBatch, Relieve]);
        assert_eq!(actions(Low, High), [TrimAll, ShrinkBatch]);
        for (before, now) in
            [(Low, Medium), (Medium, Medium), (High, High), (Critical, Critical), (Critical, High), (High, Medium)]
        {
            assert_eq!(actions(before, now), [Maintain]);
        }
        assert!(Level::ALL.iter().all(|&before| actions(before, Low).is_empty()));
    }
}
