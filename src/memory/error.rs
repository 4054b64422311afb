//! When all of the ladder did not find the memory.

use super::core::Core;
use super::ladder::RungCount;
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
}

impl OutOfMemory {
    pub(super) fn new(core: &Core, needed_bytes: u64, account: &str, cause: Cause) -> Box<Self> {
        let (reserved_bytes, live) = core.with(|inner| (inner.backing.reserved_bytes(), inner.heap.live_bytes()));
        Box::new(OutOfMemory {
            device: core.device.provider.name().into(),
            cause,
            account: account.into(),
            needed_bytes,
            available_bytes: core.limit_bytes().saturating_sub(live),
            reserved_bytes,
            rungs: core.ladder.counts(),
        })
    }
}

impl From<Box<OutOfMemory>> for Error {
    fn from(full: Box<OutOfMemory>) -> Self {
        Error::OutOfMemory { device: full.device, needed_bytes: full.needed_bytes, available_bytes: full.available_bytes }
    }
}
