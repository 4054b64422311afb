//! Freed blocks of one stream and account, kept by exact size for the next request of that size: no lock on a hit, and one atomic
//! exchange for it or for a return.

use super::bins::UNIT;
use super::lockfree::Slots;
use super::span::Span;

/// Larger blocks go back to the heap at once.
const LARGEST_BYTES: u64 = 8 << 10;
/// The slots of one stream and account: a set for each size.
pub(super) struct Cache {
    sets: Box<[Slots<Span>]>,
}

impl Cache {
    pub fn new() -> Self {
        Cache { sets: (0..LARGEST_BYTES / UNIT).map(|_| Slots::new()).collect() }
    }

    /// A span of exactly `bytes`.
    pub fn take(&self, bytes: u64) -> Option<Box<Span>> {
        self.set(bytes)?.drain().next()
    }

    /// The slots for a size, unless it is too large.
    pub fn set(&self, bytes: u64) -> Option<&Slots<Span>> {
        self.sets.get((bytes / UNIT - 1) as usize)
    }

    /// Takes everything out.
    pub fn drain(&self) -> impl Iterator<Item = Box<Span>> + '_ {
        self.sets.iter().flat_map(Slots::drain)
    }

    /// Takes everything out and lets nothing in any more.
    pub fn close(&self) -> impl Iterator<Item = Box<Span>> + '_ {
        self.sets.iter().flat_map(Slots::close)
    }
}
