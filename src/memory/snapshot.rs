//! All of a pool at one moment, for people and for viewers.

use std::collections::{BTreeMap, HashMap};

use super::budget::AccountStats;
use super::core::{Core, Holder, Inner};
use super::heap::{Block, BlockId, Domain, State};
use super::provider::StreamId;
use super::stats::Stats;
use super::timeline::TimelineEvent;

/// What a block is to a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Use {
    /// Owned.
    Live,
    /// Nobody's, but work may still use it.
    Pending,
    /// Free.
    Free,
}

/// A range of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct SnapshotBlock {
    pub address: u64,
    pub bytes: u64,
    /// 0 where it is not live.
    pub requested_bytes: u64,
    pub usage: Use,
    pub stream: Option<StreamId>,
    /// The account that holds it.
    pub owner: Option<String>,
}

/// Addresses with memory behind them, from one end to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct Segment {
    pub address: u64,
    pub bytes: u64,
    pub blocks: Vec<SnapshotBlock>,
}

/// What an account holds; at the end of a run whoever is left here leaks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct Owner {
    pub account: String,
    pub live_bytes: u64,
    pub blocks: u64,
}

/// A pool at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct Snapshot {
    pub device: String,
    /// Since the pool was made.
    pub time_us: u64,
    pub stats: Stats,
    pub segments: Vec<Segment>,
    /// The largest first.
    pub owners: Vec<Owner>,
    /// All accounts, each before its parts.
    pub accounts: Vec<AccountStats>,
    pub timeline: Vec<TimelineEvent>,
    /// Earlier events that the timeline had no room for.
    pub dropped_events: u64,
}

impl Core {
    /// All of it, caches emptied.
    pub fn snapshot(&self) -> Snapshot {
        let stats = self.stats();
        self.with(|inner| {
            let (timeline, dropped_events) = inner.timeline.events();
            Snapshot {
                device: self.device.provider.name().into(),
                time_us: inner.timeline.now_us(),
                stats,
                segments: inner.segments(),
                owners: inner.owners(),
                accounts: self.root.stats(),
                timeline,
                dropped_events,
            }
        })
    }
}

impl Inner {
    /// What accounts hold, the largest first.
    pub fn owners(&self) -> Vec<Owner> {
        let behind: HashMap<BlockId, &[BlockId]> = self.backing.windows().into_iter().flat_map(|w| w.held()).collect();
        let mut owners: BTreeMap<&str, Owner> = BTreeMap::new();
        for (id, holder) in self.holders.iter().enumerate() {
            let Some(Holder { account, .. }) = holder else { continue };
            let new = || Owner { account: account.name().into(), live_bytes: 0, blocks: 0 };
            let owner = owners.entry(account.name()).or_insert_with(new);
            let ranges = behind.get(&(id as BlockId)).copied().unwrap_or_default();
            owner.live_bytes += self.heap.block(id as BlockId).bytes + self.bytes(ranges);
            owner.blocks += 1;
        }
        let mut owners: Vec<Owner> = owners.into_values().collect();
        owners.sort_by_key(|o| std::cmp::Reverse(o.live_bytes));
        owners
    }

    fn segments(&self) -> Vec<Segment> {
        // Ranges of blocks behind windows, and the block of each.
        let held = self.backing.windows().into_iter().flat_map(|w| w.held());
        let parts: HashMap<BlockId, BlockId> = held.flat_map(|(id, others)| others.iter().map(move |&o| (o, id))).collect();
        let mut found: Vec<Segment> = Vec::new();
        for range in self.heap.segments() {
            for part in range.split(|&id| self.heap.block(id).state == State::Hole).filter(|p| !p.is_empty()) {
                let blocks: Vec<SnapshotBlock> =
                    part.iter().map(|&id| self.snapshot_block(id, parts.get(&id).copied())).collect();
                let bytes = blocks.iter().map(|b| b.bytes).sum();
                found.push(Segment { address: blocks[0].address, bytes, blocks });
            }
        }
        found.sort_by_key(|s| s.address);
        found
    }

    fn bytes(&self, ranges: &[BlockId]) -> u64 {
        ranges.iter().map(|&id| self.heap.block(id).bytes).sum()
    }

    /// A block, or a range of the block `whole`.
    fn snapshot_block(&self, id: BlockId, whole: Option<BlockId>) -> SnapshotBlock {
        let Block { address, bytes, state, .. } = self.heap.block(id);
        let holder = self.holders.get(whole.unwrap_or(id) as usize).and_then(|h| h.as_ref()).filter(|_| state == State::Live);
        let (usage, stream) = match state {
            State::Live if holder.is_some() => (Use::Live, None),
            State::Live => (Use::Pending, None),
            State::Free(domain) if domain != Domain::ready(domain.zone()) => (Use::Pending, domain.stream()),
            _ => (Use::Free, None),
        };
        SnapshotBlock {
            address,
            bytes,
            requested_bytes: holder.map_or(0, |h| h.requested_bytes.min(bytes)),
            usage,
            stream: holder.map(|h| h.stream).or(stream),
            owner: holder.map(|h| h.account.name().into()),
        }
    }
}
