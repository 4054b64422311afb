//! What is tried, in order, when no free block fits: each rung is counted and timed. The first ones move nothing; growth beyond
//! the slack, and all that follows, happens only under pressure.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::bins::UNIT;
use super::budget::Account;
use super::core::{Core, Inner};
use super::device::Device;
use super::error::OutOfMemory;
use super::heap::{BlockId, Domain, Zone};
use super::options::Options;
use super::provider::StreamId;
use crate::base::lock;

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Rung {
    /// Take blocks out of caches, and those whose work is done.
    Settle,
    /// Join the stream's own free memory with what everyone may use.
    Absorb,
    /// Take more memory from the device, within the slack.
    Grow,
    /// Take idle granules behind second addresses that they have already.
    Window,
    /// Use another stream's memory behind an event.
    OtherStream,
    /// Give idle granules second addresses, one behind the other, or move them to where they are wanted; grow to the limit.
    Remap,
    /// Wait, at most so long, for work that uses freed memory.
    Wait,
    /// Give idle memory back to the device and take what is wanted.
    Trim,
    /// Move relocatable blocks together.
    Compact,
    /// Ask the owner to drop results, prefixes and other caches.
    EvictCaches,
    /// Ask the owner to unload a model that is idle.
    UnloadIdle,
    /// Ask the owner for smaller weights or activations.
    SmallerPrecision,
    /// Ask the owner to run fewer items at once.
    SplitBatch,
    /// Ask the owner to run elsewhere.
    Cpu,
}

impl Rung {
    /// All, in the order in which they are tried.
    pub const ALL: [Rung; 14] = [
        Rung::Settle,
        Rung::Absorb,
        Rung::Grow,
        Rung::Window,
        Rung::OtherStream,
        Rung::Remap,
        Rung::Wait,
        Rung::Trim,
        Rung::Compact,
        Rung::EvictCaches,
        Rung::UnloadIdle,
        Rung::SmallerPrecision,
        Rung::SplitBatch,
        Rung::Cpu,
    ];
    /// Those that the pool climbs itself.
    const OWN: usize = 9;
    /// Those on which it asks its owner.
    pub const ASKED: &[Rung] = Self::ALL.split_at(Self::OWN).1;

    /// Its name in metrics, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Rung::Settle => "settle",
            Rung::Absorb => "absorb",
            Rung::Grow => "grow",
            Rung::Window => "window",
            Rung::OtherStream => "other_stream",
            Rung::Remap => "remap",
            Rung::Wait => "wait",
            Rung::Trim => "trim",
            Rung::Compact => "compact",
            Rung::EvictCaches => "evict_caches",
            Rung::UnloadIdle => "unload_idle",
            Rung::SmallerPrecision => "smaller_precision",
            Rung::SplitBatch => "split_batch",
            Rung::Cpu => "cpu",
        }
    }
}

/// How often a rung was tried, how often it helped, and how long all of that took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct RungCount {
    pub rung: Rung,
    pub tried: u64,
    pub helped: u64,
    pub time_us: u64,
}

/// What an owner is asked to find memory for.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Shortage {
    pub rung: Rung,
    pub needed_bytes: u64,
    /// The account that asks.
    pub account: String,
}

/// Answers whether it let go of something, so that another try may succeed.
pub type Relief = Box<dyn Fn(&Shortage) -> bool + Send + Sync>;

/// A relief, its rung, and whose memory it gives back.
type Registered = (Rung, Weak<Account>, Arc<Relief>);

/// Counts of all rungs, and the owner's part of the ladder.
#[derive(Default)]
pub(super) struct Ladder {
    counts: [[AtomicU64; 3]; Rung::ALL.len()],
    reliefs: Mutex<Vec<Registered>>,
}

impl Ladder {
    fn count(&self, rung: Rung, helped: bool, time: Duration) {
        let [tries, helps, nanos] = &self.counts[rung as usize];
        tries.fetch_add(1, Relaxed);
        helps.fetch_add(helped.into(), Relaxed);
        nanos.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    pub fn counts(&self) -> Vec<RungCount> {
        let count = |(&rung, c): (&Rung, &[AtomicU64; 3])| {
            let [tried, helped, nanos] = c.each_ref().map(|v| v.load(Relaxed));
            RungCount { rung, tried, helped, time_us: nanos / 1000 }
        };
        Rung::ALL.iter().zip(&self.counts).map(count).collect()
    }

    /// Times that all own rungs did not help.
    pub fn failures(&self) -> u64 {
        let [tried, helped, _] = self.counts[Rung::OWN - 1].each_ref().map(|v| v.load(Relaxed));
        tried.saturating_sub(helped)
    }

    pub fn relief(&self, rung: Rung, of: &Arc<Account>, relief: Relief) {
        lock(&self.reliefs).push((rung, Arc::downgrade(of), Arc::new(relief)));
    }

    /// Asks the owners of what counts as `exhausted`'s, without any lock held; whether something was freed.
    fn ask(&self, shortage: &Shortage, exhausted: &Account) -> bool {
        let helps = |(rung, of, _): &&Registered| {
            *rung == shortage.rung && of.upgrade().is_some_and(|account| account.is_part_of(exhausted))
        };
        let (asked, gone): (Vec<_>, Vec<_>) = {
            let mut all = lock(&self.reliefs);
            let gone = all.extract_if(.., |(_, of, _)| of.strong_count() == 0).collect();
            (all.iter().filter(helps).map(|r| r.2.clone()).collect(), gone)
        };
        drop(gone);
        let start = Instant::now();
        let helped = asked.iter().map(|relief| relief(shortage)).filter(|h| *h).count() > 0;
        if !asked.is_empty() {
            self.count(shortage.rung, helped, start.elapsed());
        }
        helped
    }
}

/// This part of all that was moved is added to the slack.
const MOVED_PART: u64 = 512;

/// What an allocation wants.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub stream: StreamId,
    pub zone: Zone,
    pub bytes: u64,
    pub align: u64,
}

impl Request {
    /// Bytes that have room for an aligned block wherever they lie.
    pub fn room(&self) -> u64 {
        self.bytes + self.align.saturating_sub(UNIT)
    }
}

impl Core {
    /// A block for a request that nothing free fits, and the mark that it follows.
    pub fn climb(&self, request: Request, account: &str, hold: &mut dyn FnMut(&mut Inner, BlockId)) -> Option<(BlockId, u64)> {
        // What was refused before is another request's.
        self.device.refusal();
        if let Some(found) = self.own_rungs(request, hold) {
            return Some(found);
        }
        Rung::ASKED.iter().find_map(|&rung| {
            let shortage = Shortage { rung, needed_bytes: request.bytes, account: account.into() };
            self.ladder.ask(&shortage, &self.root).then(|| self.own_rungs(request, hold)).flatten()
        })
    }

    /// Charges `bytes` to an account, for which caches are emptied and the owners are asked. Errors when that does not suffice.
    pub fn charge(&self, account: &Account, bytes: u64) -> Result<(), Box<OutOfMemory>> {
        if account.charge(bytes).is_ok() {
            return Ok(());
        }
        self.flush();
        let Err(full) = account.charge(bytes) else { return Ok(()) };
        let mut enough = || account.charge(bytes).is_ok();
        let helped = self.relieve(Rung::ASKED, bytes, account.name(), full, &mut enough);
        if helped { Ok(()) } else { Err(OutOfMemory::new(self, bytes, account.name(), Some(full))) }
    }

    /// Asks the owners alone, on these rungs, for what counts as `exhausted`'s. Whether `enough` holds after some rung.
    pub fn relieve(
        &self,
        rungs: &[Rung],
        needed_bytes: u64,
        account: &str,
        exhausted: &Account,
        enough: &mut dyn FnMut() -> bool,
    ) -> bool {
        rungs.iter().any(|&rung| {
            let shortage = Shortage { rung, needed_bytes, account: account.into() };
            self.ladder.ask(&shortage, exhausted) && {
                self.flush();
                enough()
            }
        })
    }

    fn own_rungs(&self, request: Request, hold: &mut dyn FnMut(&mut Inner, BlockId)) -> Option<(BlockId, u64)> {
        Rung::ALL[..Rung::OWN].iter().find_map(|&rung| {
            let start = Instant::now();
            match rung {
                Rung::Settle => self.flush(),
                Rung::Wait => self.wait_for_work(),
                Rung::Compact => self.compact(),
                _ => {}
            }
            let found = self.with(|inner| {
                let found = inner.rung(self, rung, request)?;
                hold(inner, found.0);
                Some(found)
            });
            self.ladder.count(rung, found.is_some(), start.elapsed());
            found
        })
    }

    /// Waits until all freed memory is ready, or for as long as the options say.
    pub fn wait_for_work(&self) {
        let end = Instant::now() + self.options.wait;
        for (stream, seq) in self.with(|inner| inner.fences()) {
            let left = end.saturating_duration_since(Instant::now());
            // A device that cannot wait has not done the work: its memory stays pending.
            let _ = self.device.provider.streams().wait_host(stream, seq, left);
        }
    }
}

impl Inner {
    /// One rung, under the lock. An error of the provider is a rung that did not help.
    fn rung(&mut self, core: &Core, rung: Rung, request: Request) -> Option<(BlockId, u64)> {
        let Request { stream, zone, bytes, .. } = request;
        // Small blocks need a whole granule, which any growth brings.
        let own = Domain::of(stream, Zone::Large);
        let room = if zone == Zone::Small { 1 } else { request.room() };
        let device = &core.device;
        let limit = core.limit_bytes();
        let grow = |inner: &mut Inner, steal, limit| inner.backing.grow(&mut inner.heap, device, own, room, steal, limit).ok();
        match rung {
            Rung::Settle => self.settle(device),
            Rung::Absorb => self.absorb(Domain::of(stream, zone)),
            Rung::Grow => {
                let allowance = self.allowance(&core.options, bytes);
                grow(self, false, allowance.min(limit))?;
            }
            Rung::Window => return self.window(device, request, false),
            Rung::OtherStream => {
                if let Ok(Some(found)) = self.borrow(device, request) {
                    return Some(found);
                }
                self.merge(device, stream).ok()?;
            }
            Rung::Remap => {
                if let Some(found) = self.window(device, request, true) {
                    return Some(found);
                }
                grow(self, true, limit)?;
            }
            Rung::Wait => {
                self.settle(device);
                if let Some(found) = self.fit(request).or_else(|| self.window(device, request, true)) {
                    return Some(found);
                }
                grow(self, true, limit)?;
            }
            Rung::Trim | Rung::Compact => {
                self.settle(device);
                if let Some(found) = self.fit(request) {
                    return Some(found);
                }
                self.backing.trim(&mut self.heap, device, 0).ok()?;
                grow(self, true, limit)?;
            }
            _ => return None,
        }
        self.fit(request).or_else(|| (zone == Zone::Small && self.chunk()).then(|| self.fit(request)).flatten())
    }

    /// A block behind a window.
    fn window(&mut self, device: &Device, request: Request, make: bool) -> Option<(BlockId, u64)> {
        let Request { stream, zone, bytes, align } = request;
        let own = Domain::of(stream, Zone::Large);
        (zone == Zone::Large && align <= UNIT).then(|| self.backing.window(&mut self.heap, device, own, bytes, make))?
    }

    /// What may be reserved without moving anything first. Who moves memory again and again had better have more of it.
    fn allowance(&self, options: &Options, bytes: u64) -> u64 {
        let live = self.peak_live_bytes.max(self.heap.live_bytes() + bytes);
        let part = |times: f64| (live as f64 * times) as u64;
        let earned = self.backing.unmapped_bytes() / MOVED_PART;
        (part(options.slack) + earned)
            .min(part(options.most_slack.max(options.slack)))
            .max(live.saturating_add(options.keep_bytes))
    }
}
