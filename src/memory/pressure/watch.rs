//! A pool that acts on the level of pressure, on the watch's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::level::{Action, Excess, Gauge, Level, Thresholds, actions};
use crate::error::{Error, Result};
use crate::hardware::nvml::{Reading, Watch};
use crate::memory::{Pool, Rung};

/// A watch over the device of a pool. It holds the pool; dropping it waits for what it is doing.
pub struct PressureWatch {
    watch: Watch,
    level: Arc<AtomicU8>,
}

impl PressureWatch {
    /// Takes a reading every `period` and acts on the level: medium gives back what is long idle, high all that is idle and asks for
    /// smaller batches ([`Rung::SplitBatch`]), critical asks on all rungs. `on_change` hears of a change, the level before and now,
    /// at the sample that brings it and before anything is done. Errors when the system gives no thread.
    pub fn start(
        pool: &Pool,
        readings: impl Iterator<Item = Reading> + Send + 'static,
        period: Duration,
        thresholds: Thresholds,
        mut on_change: impl FnMut(Level, Level) + Send + 'static,
    ) -> Result<Self> {
        let level = Arc::new(AtomicU8::new(Level::Low as u8));
        let (pool, told, mut gauge) = (pool.clone(), level.clone(), Gauge::new(thresholds));
        let device = pool.account().name().to_string();
        let each = move |reading: &Reading| {
            let (before, usage) = (gauge.level(), pool.usage());
            let (now, excess) = gauge.next(reading, &usage);
            told.store(now as u8, Relaxed);
            if now != before {
                on_change(before, now);
            }
            actions(before, now).iter().for_each(|&action| act(&pool, action, usage.reserved_bytes, excess));
        };
        let watch = Watch::start(readings, period, each).map_err(|e| Error::Device { device, why: e.to_string() })?;
        Ok(PressureWatch { watch, level })
    }

    /// The level after the last reading; one atomic load.
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed))]
    }

    /// The readings.
    pub fn readings(&self) -> &Watch {
        &self.watch
    }
}

/// Errors of the device are left to whoever allocates next: they cannot be mended here.
fn act(pool: &Pool, action: Action, reserved_bytes: u64, excess: Excess) {
    let ask = |rungs| {
        let given = reserved_bytes.saturating_sub(pool.usage().reserved_bytes);
        let left = excess.device_bytes.saturating_sub(given).max(excess.budget_bytes);
        if left > 0 {
            pool.relieve(rungs, left);
        }
        pool.trim(0)
    };
    let _ = match action {
        Action::Maintain => pool.maintain(Instant::now()),
        Action::TrimAll => pool.trim(0),
        Action::ShrinkBatch => ask(&[Rung::SplitBatch]),
        Action::Relieve => ask(Rung::ASKED),
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;
    use crate::base::lock;
    use crate::hardware::nvml::{Absent, Memory};
    use crate::memory::provider::software::SoftwareStreams;
    use crate::memory::provider::virtual_device::VirtualDevice;
    use crate::memory::{Block, Options, StreamId};

    const MIB: u64 = 1 << 20;

    /// A device of 100 MiB, read as NVML would read it; what is sent is taken by another process first.
    fn played(device: Arc<VirtualDevice>, others: mpsc::Receiver<u64>) -> impl Iterator<Item = Reading> + Send {
        others.into_iter().map(move |other| {
            let used_bytes = device.used_bytes().0 + other;
            let memory = Memory { total_bytes: 100 * MIB, free_bytes: 100 * MIB - used_bytes, used_bytes, reserved_bytes: None };
            Reading { memory: Ok(memory), ..Reading::absent(Absent::NotAsked) }
        })
    }

    #[test]
    fn each_level_is_acted_on_within_its_sample() {
        let device = Arc::new(VirtualDevice::new(100 * MIB, Some(2 * MIB), SoftwareStreams::immediate()));
        let pool = Pool::new(device.clone(), Options { keep_bytes: 64 * MIB, ..Options::default() });
        let arena = pool.arena(pool.account(), StreamId(0));
        let blocks = Arc::new(Mutex::new((0..20).map(|_| arena.block(2 * MIB).unwrap()).collect::<Vec<Block>>()));
        lock(&blocks).truncate(10);
        let asked = Arc::new(Mutex::new(Vec::new()));
        for (rung, leaves) in [(Rung::SplitBatch, 9), (Rung::EvictCaches, 5)] {
            let (asked, blocks) = (asked.clone(), blocks.clone());
            let relief = move |_: &crate::memory::Shortage| {
                lock(&asked).push(rung);
                lock(&blocks).truncate(leaves);
                true
            };
            pool.on_shortage(rung, Box::new(relief));
        }
        let (tell, others) = mpsc::channel();
        let (changed, changes) = mpsc::channel();
        let on_change = move |before, now| changed.send((before, now)).unwrap();
        let readings = played(device.clone(), others);
        let watch = PressureWatch::start(&pool, readings, Duration::ZERO, Thresholds::default(), on_change).unwrap();
        assert_eq!((device.used_bytes().0, watch.level()), (40 * MIB, Level::Low));

        // 40 of its own, 50 of another's: high. Idle memory goes, which is enough.
        tell.send(50 * MIB).unwrap();
        assert_eq!(changes.recv().unwrap(), (Level::Low, Level::High));
        // The next sample is taken after that: 20 and 50.
        tell.send(50 * MIB).unwrap();
        assert_eq!((changes.recv().unwrap(), device.used_bytes().0), ((Level::High, Level::Medium), 20 * MIB));
        assert!(lock(&asked).is_empty());
        // 20 and 76: critical, 16 above what ends high; a smaller batch gives 2, caches 8 more.
        tell.send(76 * MIB).unwrap();
        assert_eq!(changes.recv().unwrap(), (Level::Medium, Level::Critical));
        tell.send(0).unwrap();
        assert_eq!(changes.recv().unwrap(), (Level::Critical, Level::Low));
        assert_eq!(device.used_bytes().0, 10 * MIB);
        assert_eq!(*lock(&asked), [Rung::SplitBatch, Rung::EvictCaches, Rung::SplitBatch]);
        drop(tell);
        drop(watch);
        pool.check().unwrap();
    }
}
