//! The pool of one device: accounts, arenas, launches, cleanup and figures.

use std::sync::Arc;
use std::time::Instant;

use super::arena::Arena;
use super::budget::{Account, Charge};
use super::cache::Cache;
use super::core::Core;
use super::device::Device;
use super::error::OutOfMemory;
use super::ladder::{Relief, Rung};
use super::launch::Launch;
use super::options::Options;
use super::pressure::Usage;
use super::provider::{Provider, StreamId};
use super::snapshot::{Owner, Snapshot};
use super::span::Lane;
use super::stats::Stats;
use super::timeline::Timeline;
use crate::base::lock;
use crate::error::Result;

/// All memory of one device. Clones are handles of the same pool; it lives as long as any block of it.
#[derive(Clone)]
pub struct Pool {
    core: Arc<Core>,
}

impl Pool {
    /// A pool over a device.
    pub fn new(provider: Arc<dyn Provider>, options: Options) -> Self {
        let root = Account::root(provider.name(), u64::MAX);
        Self::charged_to(root, provider, options)
    }

    /// The same under a root that other pools of the device may have, too.
    pub fn charged_to(root: Arc<Account>, provider: Arc<dyn Provider>, options: Options) -> Self {
        let device = Device::new(provider, Timeline::new(options.timeline));
        Pool { core: Arc::new(Core::new(device, options, root)) }
    }

    /// The account of the process; models are its children, requests theirs.
    pub fn account(&self) -> &Arc<Account> {
        &self.core.root
    }

    /// Where blocks for work on `stream` come from, charged to `account`.
    pub fn arena(&self, account: &Arc<Account>, stream: StreamId) -> Arena {
        let lane = Lane { core: self.core.clone(), stream, account: account.clone(), cache: Cache::new() };
        let lane = Arc::new(lane);
        lock(&self.core.lanes).push(Arc::downgrade(&lane));
        Arena::new(lane)
    }

    /// Work about to be submitted to `stream`.
    pub fn launch(&self, stream: StreamId) -> Launch<'_> {
        Launch::new(&self.core, stream)
    }

    /// Lets `account` pay for memory of the device that is no block of this pool, as if it were. Errors when all of the ladder on which
    /// owners are asked does not make room in the account.
    pub fn pay(&self, account: &Arc<Account>, bytes: u64) -> std::result::Result<Charge, Box<OutOfMemory>> {
        self.core.charge(account, bytes)?;
        Ok(Charge { account: account.clone(), bytes })
    }

    /// Asks `relief` on that rung of the ladder, from [`Rung::EvictCaches`] on. It may free and allocate.
    pub fn on_shortage(&self, rung: Rung, relief: Relief) {
        self.on_shortage_of(self.account(), rung, relief);
    }

    /// The same for what gives back memory of `account` alone: it is asked where that helps, and forgotten with the account.
    pub fn on_shortage_of(&self, account: &Arc<Account>, rung: Rung, relief: Relief) {
        self.core.ladder.relief(rung, account, relief);
    }

    /// Gives free memory back to the device until about `keep_bytes` of it are left. Errors when the device refuses.
    pub fn trim(&self, keep_bytes: u64) -> Result<()> {
        self.core.flush();
        self.core.with(|inner| {
            inner.settle(&self.core.device);
            inner.backing.trim(&mut inner.heap, &self.core.device, keep_bytes)
        })
    }

    /// Gives back what nobody wanted for as long as the options say, once it is more than the options keep; then half of that
    /// stays. To be called now and then, with the time. Errors when the device refuses.
    pub fn maintain(&self, now: Instant) -> Result<()> {
        let Options { idle, keep_bytes, .. } = self.core.options;
        let unwanted = self.core.with(|inner| {
            let unwanted = inner.unwanted_bytes;
            (now.saturating_duration_since(inner.since) >= idle).then(|| {
                (inner.since, inner.unwanted_bytes) = (now, inner.free_bytes());
                unwanted
            })
        });
        if unwanted.is_none_or(|bytes| bytes <= keep_bytes) {
            return Ok(());
        }
        let wanted = self.core.with(|inner| inner.free_bytes()).saturating_sub(unwanted.unwrap_or(0));
        self.trim(wanted + keep_bytes / 2)
    }

    /// Brings what is idle into one piece: by remapping where there is virtual memory management, else by moving movable blocks.
    /// Waits for work that uses freed memory as long as the options say. Errors when the device refuses.
    pub fn defragment(&self) -> Result<()> {
        let core = &self.core;
        core.flush();
        core.wait_for_work();
        let gathered = core.with(|inner| {
            inner.settle(&core.device);
            inner.backing.gather(&mut inner.heap, &core.device)
        })?;
        if !gathered {
            core.compact();
        }
        Ok(())
    }

    /// What pressure is judged by. Takes nothing out of caches.
    pub(super) fn usage(&self) -> Usage {
        let (core, account) = (&self.core, self.account());
        Usage {
            reserved_bytes: self.reserved_bytes(),
            used_bytes: account.used_bytes(),
            budget_bytes: account.limit_bytes().min(core.limit_bytes()),
            failures: core.ladder.failures(),
        }
    }

    /// Asks the owner on these rungs, in their order, until its blocks hold `bytes` less; whether it came to that.
    pub(super) fn relieve(&self, rungs: &[Rung], bytes: u64) -> bool {
        let account = self.account();
        let most = account.used_bytes().saturating_sub(bytes);
        self.core.relieve(rungs, bytes, account.name(), account, &mut || account.used_bytes() <= most)
    }

    /// Figures of this moment.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Bytes taken from the device. Takes nothing out of caches.
    pub fn reserved_bytes(&self) -> u64 {
        self.core.with(|inner| inner.backing.reserved_bytes())
    }

    /// What accounts hold, the largest first. Takes nothing out of caches: free blocks in them count.
    pub fn owners(&self) -> Vec<Owner> {
        self.core.with(|inner| inner.owners())
    }

    /// Keeps the last `events` from now on for snapshots, 0 to end that; caches are off meanwhile: see
    /// [`Options::timeline`], which does it from the start.
    pub fn record(&self, events: usize) {
        self.core.device.timeline.restart(events);
        self.core.flush();
    }

    /// All blocks, their owners and the last events.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// Recounts everything; what is wrong.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.core.with(|inner| inner.heap.check().and_then(|()| inner.backing.check(&inner.heap)))
    }
}
