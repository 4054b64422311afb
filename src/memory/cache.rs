//! Freed blocks of one stream and account, kept by exact size for the next request of that size: no lock on a hit.
//!
//! A slot is an atomic pointer to a span that nobody else holds: whoever swaps it out owns it. So there is no ABA problem, and a
//! hit or a return costs one atomic exchange.

use std::ptr::null_mut;

use super::bins::UNIT;
use super::span::Span;
use super::sync::{AtomicPtr, Ordering};

/// Larger blocks go back to the heap at once.
pub const LARGEST_BYTES: u64 = 8 << 10;
const SETS: usize = 64;
const WAYS: usize = 8;

/// The slots that sizes of one hash share: a line of the processor's cache.
#[repr(align(64))]
pub(super) struct Set([AtomicPtr<Span>; WAYS]);

/// The slots of one stream and account.
pub(super) struct Cache {
    sets: Box<[Set]>,
}

fn set(bytes: u64) -> usize {
    ((bytes / UNIT).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize
}

impl Cache {
    pub fn new() -> Self {
        Cache { sets: (0..SETS).map(|_| Set(std::array::from_fn(|_| AtomicPtr::new(null_mut())))).collect() }
    }

    /// A span of exactly `bytes`; or, wrapped, one of another size that found no slot to go back to.
    pub fn take(&self, bytes: u64) -> Option<Result<Box<Span>, Box<Span>>> {
        for slot in &self.sets[set(bytes)].0 {
            let Some(span) = swap(slot, null_mut()) else { continue };
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
    pub fn set(&self, bytes: u64) -> *const Set {
        &self.sets[set(bytes)]
    }

    fn slots(&self) -> impl Iterator<Item = &AtomicPtr<Span>> {
        self.sets.iter().flat_map(|set| &set.0)
    }

    /// Takes everything out.
    pub fn drain(&self) -> impl Iterator<Item = Box<Span>> + '_ {
        self.slots().filter_map(|slot| swap(slot, null_mut()))
    }

    /// Takes everything out and lets nothing in any more.
    pub fn close(&self) -> impl Iterator<Item = Box<Span>> + '_ {
        self.slots().filter_map(|slot| swap(slot, CLOSED))
    }
}

/// What fills a slot for good.
const CLOSED: *mut Span = std::ptr::without_provenance_mut(1);

fn holds(raw: *mut Span) -> bool {
    !raw.is_null() && raw != CLOSED
}

/// What a slot holds, if this call is the one that gets it; the slot holds `next` then.
fn swap(slot: &AtomicPtr<Span>, next: *mut Span) -> Option<Box<Span>> {
    let raw = match next.is_null() {
        true => {
            let raw = slot.load(Ordering::Relaxed);
            // An exchange that expects the span does not open a slot that was closed meanwhile.
            let won = holds(raw) && slot.compare_exchange(raw, next, Ordering::Acquire, Ordering::Relaxed).is_ok();
            if won { raw } else { null_mut() }
        }
        false => slot.swap(next, Ordering::AcqRel),
    };
    // SAFETY: only `put` fills slots, from a box, and the exchange gave the pointer to this call alone.
    holds(raw).then(|| unsafe { Box::from_raw(raw) })
}

/// Keeps a span, or gives it back when its set is full or closed.
///
/// # Safety
/// `set` is valid until a slot has taken the span. After that neither is touched: the span's next owner may let both go.
pub(super) unsafe fn put(set: *const Set, span: Box<Span>) -> Result<(), Box<Span>> {
    let raw = Box::into_raw(span);
    for way in 0..WAYS {
        // SAFETY: no slot has the span yet, so the caller's promise holds.
        let slot = unsafe { &(&(*set).0)[way] };
        let empty = slot.load(Ordering::Relaxed).is_null();
        if empty && slot.compare_exchange(null_mut(), raw, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return Ok(());
        }
    }
    // SAFETY: made of a box above, and no slot took it.
    Err(unsafe { Box::from_raw(raw) })
}
