//! When all of the ladder did not find the memory.

use super::core::Core;
use super::dump::dump;
use super::ladder::RungCount;
use super::provider::StreamId;
use super::snapshot::Snapshot;
use super::stats::Stats;
use super::timeline::EventKind;
use crate::error::Error;

/// What was exhausted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The device, or the pool's limit.
    Device,
    /// This account.
    Account(String),
}

/// An allocation that failed, with what there was and what was tried.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "out of memory on {device}: {account} asked for {needed_bytes} bytes; {available_bytes} are free of {reserved_bytes} reserved"
)]
#[allow(missing_docs)]
pub struct OutOfMemory {
    pub device: String,
    pub cause: Cause,
    /// The account that asked.
    pub account: String,
    pub needed_bytes: u64,
    /// Free and unreserved bytes, in however many pieces.
    pub available_bytes: u64,
    pub reserved_bytes: u64,
    pub rungs: Vec<RungCount>,
    /// All of the pool when it happened.
    pub snapshot: Snapshot,
}

impl OutOfMemory {
    pub(super) fn new(core: &Core, needed_bytes: u64, account: &str, cause: Cause) -> Box<Self> {
        core.device.timeline.record(EventKind::OutOfMemory, 0, needed_bytes, StreamId::default(), account);
        let snapshot = core.snapshot();
        let Stats { reserved_bytes, live_bytes, .. } = snapshot.stats;
        let full = Box::new(OutOfMemory {
            device: core.device.provider.name().into(),
            cause,
            account: account.into(),
            needed_bytes,
            available_bytes: core.limit_bytes().saturating_sub(live_bytes),
            reserved_bytes,
            rungs: core.ladder.counts(),
            snapshot,
        });
        dump(&full);
        full
    }
}

impl From<Box<OutOfMemory>> for Error {
    fn from(full: Box<OutOfMemory>) -> Self {
        Error::OutOfMemory { device: full.device, needed_bytes: full.needed_bytes, available_bytes: full.available_bytes }
    }
}
