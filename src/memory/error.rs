//! When all of the ladder did not find the memory.

use super::budget::Account;
use super::core::Core;
use super::dump;
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
    /// The budget of this account.
    #[allow(missing_docs)]
    Account { name: String, limit_bytes: u64 },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Cause::Device => Ok(()),
            Cause::Account { name, limit_bytes } => write!(f, ", of the {limit_bytes} bytes of {name}"),
        }
    }
}

/// An allocation that failed, with what there was and what was tried.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "out of memory on {device}{cause}: {account} asked for {needed_bytes} bytes; {available_bytes} are free of {reserved_bytes} reserved"
)]
#[allow(missing_docs)]
pub struct OutOfMemory {
    pub device: String,
    pub cause: Cause,
    /// The account that asked.
    pub account: String,
    pub needed_bytes: u64,
    /// Free and unreserved bytes, in however many pieces; of an account that is exhausted, what it has left.
    pub available_bytes: u64,
    pub reserved_bytes: u64,
    pub rungs: Vec<RungCount>,
    /// What the device refused last.
    pub refusal: Option<Error>,
    /// All of the pool when it happened.
    pub snapshot: Snapshot,
}

impl OutOfMemory {
    /// Of the device, unless an account is exhausted.
    pub(super) fn new(core: &Core, needed_bytes: u64, account: &str, exhausted: Option<&Account>) -> Box<Self> {
        core.device.timeline.record(EventKind::OutOfMemory, 0, needed_bytes, StreamId::default(), account);
        let snapshot = core.snapshot();
        let Stats { reserved_bytes, live_bytes, .. } = snapshot.stats;
        let (cause, available_bytes) = match exhausted {
            None => (Cause::Device, core.limit_bytes().saturating_sub(live_bytes)),
            Some(full) => {
                let limit_bytes = full.limit_bytes();
                (Cause::Account { name: full.name().into(), limit_bytes }, limit_bytes.saturating_sub(full.used_bytes()))
            }
        };
        let full = Box::new(OutOfMemory {
            device: core.device.provider.name().into(),
            cause,
            account: account.into(),
            needed_bytes,
            available_bytes,
            reserved_bytes,
            rungs: core.ladder.counts(),
            refusal: core.device.refusal(),
            snapshot,
        });
        dump::fail(&full);
        full
    }
}

impl From<Box<OutOfMemory>> for Error {
    /// An error of the device that is not about memory is told as it is. Where it is, the device knows what others left.
    fn from(full: Box<OutOfMemory>) -> Self {
        let OutOfMemory { device, cause, needed_bytes, available_bytes, refusal, .. } = *full;
        match (cause, refusal) {
            (Cause::Account { name, limit_bytes }, _) => {
                Error::OverBudget { account: name, limit_bytes, needed_bytes, available_bytes }
            }
            (Cause::Device, Some(Error::OutOfMemory { available_bytes, .. })) => {
                Error::OutOfMemory { device, needed_bytes, available_bytes }
            }
            (Cause::Device, Some(other)) => other,
            (Cause::Device, None) => Error::OutOfMemory { device, needed_bytes, available_bytes },
        }
    }
}
