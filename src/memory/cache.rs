//! Freed blocks of one stream and account, kept by exact size for the next request of that size: no lock on a hit, and one atomic
//! exchange for it or for a return.

use super::bins::UNIT;
use super::lockfree::{Slots, put};
use super::span::Span;

/// Larger blocks go back to the heap at once.
pub const LARGEST_BYTES: u64 = 8 << 10;
const SETS: usize = 64;

/// The slots of one stream and account. Sizes of one hash share a set.
pub(super) struct Cache {
    sets: Box<[Slots<Span>]>,
}

fn set(bytes: u64) -> usize {
    ((bytes / UNIT).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize
}

impl Cache {
    pub fn new() -> Self {
        Cache { sets: (0..SETS).map(|_| Slots::new()).collect() }
    }

    /// A span of exactly `bytes`; or, wrapped, one of another size that found no slot to go back to.
    pub fn take(&self, bytes: u64) -> Option<Result<Box<Span>, Box<Span>>> {
        for span in self.sets[set(bytes)].drain() {
            if span.bytes == bytes {
                return Some(Ok(span));
            }
            // SAFETY: `self` outlives the call.
            if let Err(span) = unsafe { put(self.set(bytes), span) } {
                return Some(Err(span));
            }
        }
        None
    }

    /// The slots for a size.
    pub fn set(&self, bytes: u64) -> *const Slots<Span> {
        &self.sets[set(bytes)]
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
