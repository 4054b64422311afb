//! The device's memory: blocks of a pool over what the driver allocates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::driver::Driver;
use crate::error::Result;
use crate::hardware::{DeviceInfo, DeviceKind};
use crate::memory::provider::{Mapping, Streams};
use crate::memory::{Account, Arena, Block, Options, Pool, Provider, StreamId};

/// All work of a device is on one stream, in the order of the calls.
const STREAM: StreamId = StreamId(0);

/// What memory is for: wgpu binds a buffer either to be read or to be written in a launch, so that constants never lie in one buffer with
/// what launches write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Intermediates, inputs and outputs of runs.
    Run,
    /// What is written once.
    Constant,
}

/// Memory until it is dropped.
pub(super) enum Held<D: Driver> {
    /// Of the pool.
    Pooled(Block),
    /// An allocation of its own.
    Own(Arc<D>, u64),
}

impl<D: Driver> Held<D> {
    /// Where it begins.
    pub fn address(&self) -> u64 {
        match self {
            Held::Pooled(block) => block.address(),
            Held::Own(_, address) => *address,
        }
    }
}

impl<D: Driver> Drop for Held<D> {
    fn drop(&mut self) {
        if let Held::Own(driver, address) = self {
            driver.free(*address);
        }
    }
}

/// The pools of a device, and who pays for what is taken from them.
pub(super) struct Memory<D: Driver> {
    source: Arc<Source<D>>,
    pub account: Arc<Account>,
    runs: (Pool, Arena),
    constants: (Pool, Arena),
    /// Whether constants have a pool of their own.
    apart: bool,
}

impl<D: Driver> Memory<D> {
    pub fn new(info: &DeviceInfo, driver: Arc<D>) -> Self {
        let capacity_bytes = if info.memory_bytes == 0 { u64::MAX } else { info.memory_bytes };
        let source = Source { driver, name: info.name.clone(), capacity_bytes, marked: 0.into(), done: 0.into() };
        let (source, account) = (Arc::new(source), Account::root(&info.name, u64::MAX));
        let pool = || Pool::charged_to(account.clone(), source.clone(), Options::default());
        let arena = |pool: Pool| (pool.clone(), pool.arena(&account, STREAM));
        let runs = pool();
        let apart = info.kind == DeviceKind::Wgpu;
        let constants = if apart { pool() } else { runs.clone() };
        Memory { source, runs: arena(runs), constants: arena(constants), apart, account }
    }

    /// The same pools, paid for by an account of its own, and runs by a part of that.
    pub fn tenant(&self, name: &str, limit_bytes: u64) -> Self {
        let account = self.account.child(name, limit_bytes);
        let arena = |pool: &Pool, account| (pool.clone(), pool.arena(account, STREAM));
        let (runs, constants) = (arena(&self.runs.0, &account.child("runs", u64::MAX)), arena(&self.constants.0, &account));
        Memory { source: self.source.clone(), runs, constants, apart: self.apart, account }
    }

    /// At least `bytes`, contents undefined. Errors when the device is full, or with the driver's own words.
    pub fn take(&self, purpose: Purpose, bytes: usize) -> Result<Held<D>> {
        let driver = &self.source.driver;
        if !driver.is_pooled() {
            return Ok(Held::Own(driver.clone(), driver.allocate(bytes)?));
        }
        let (_, arena) = if purpose == Purpose::Run { &self.runs } else { &self.constants };
        Ok(Held::Pooled(arena.block(bytes as u64)?))
    }

    /// Does work that uses `memory`: the pool keeps it from others until the work is done. `work` answers whether it waited for all of it.
    pub fn used<R>(&self, memory: &Held<D>, work: impl FnOnce() -> Result<(R, bool)>) -> Result<R> {
        let mut launch = self.runs.0.launch(STREAM);
        if let Held::Pooled(block) = memory {
            launch.bind(block)?;
        }
        let done = work();
        let mark = launch.submit()?;
        let (result, waited) = done?;
        if waited {
            self.source.done.fetch_max(mark, Relaxed);
        }
        self.pools().into_iter().try_for_each(|pool| pool.maintain(Instant::now()))?;
        Ok(result)
    }

    /// The pools, each once.
    pub fn pools(&self) -> Vec<&Pool> {
        [Some(&self.runs.0), self.apart.then_some(&self.constants.0)].into_iter().flatten().collect()
    }
}

/// A driver as the pool sees it. Its one stream is done with a mark when somebody waited for all that came before.
struct Source<D: Driver> {
    driver: Arc<D>,
    name: String,
    capacity_bytes: u64,
    marked: AtomicU64,
    done: AtomicU64,
}

impl<D: Driver> Provider for Source<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        self.driver.allocate(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn free(&self, address: u64, _: u64) {
        self.driver.free(address);
    }

    fn largest_slab_bytes(&self) -> u64 {
        self.driver.largest_allocation_bytes().min(self.capacity_bytes)
    }

    fn streams(&self) -> &dyn Streams {
        self
    }

    fn mapping(&self) -> Option<&dyn Mapping> {
        self.driver.mapping()
    }

    fn copy(&self, _: StreamId, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.driver.copy(from, to, bytes)
    }
}

impl<D: Driver> Streams for Source<D> {
    fn mark(&self, _: StreamId) -> Result<u64> {
        Ok(self.marked.fetch_add(1, Relaxed) + 1)
    }

    fn completed(&self, _: StreamId) -> u64 {
        self.done.load(Relaxed)
    }

    /// There is but one stream.
    fn wait(&self, _: StreamId, _: StreamId, _: u64) -> Result<()> {
        Ok(())
    }

    /// Waits for all of it, however long that takes.
    fn wait_host(&self, _: StreamId, seq: u64, _: Duration) -> Result<bool> {
        if self.done.load(Relaxed) < seq {
            let marked = self.marked.load(Relaxed);
            self.driver.synchronize()?;
            self.done.fetch_max(marked, Relaxed);
        }
        Ok(true)
    }
}
