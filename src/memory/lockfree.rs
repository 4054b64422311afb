//! What needs no lock: slots that hold a box each, and a stack that is only ever emptied whole. Whoever exchanges a pointer out
//! owns what it points to, so there is no ABA problem. `tests/lockfree.rs` goes through all orders of their steps with loom.

use std::ptr::null_mut;

use super::sync::{AtomicPtr, Ordering};

const WAYS: usize = 8;

/// A few boxes, each with one owner: a line of the processor's cache.
#[repr(align(64))]
pub struct Slots<T>([AtomicPtr<T>; WAYS]);

/// What fills a slot for good.
fn closed<T>() -> *mut T {
    std::ptr::without_provenance_mut(1)
}

fn owned<T>(raw: *mut T) -> Option<Box<T>> {
    // SAFETY: only `put` fills slots, from a box, and the exchange gave the pointer to the caller alone.
    (!raw.is_null() && raw != closed()).then(|| unsafe { Box::from_raw(raw) })
}

impl<T> Slots<T> {
    pub fn new() -> Self {
        Slots(std::array::from_fn(|_| AtomicPtr::new(null_mut())))
    }

    /// Takes out one box after the other.
    pub fn drain(&self) -> impl Iterator<Item = Box<T>> + '_ {
        let take = |slot: &AtomicPtr<T>| {
            let raw = slot.load(Ordering::Relaxed);
            // An exchange that expects the box does not open a slot that was closed meanwhile.
            let full = !raw.is_null() && raw != closed();
            let won = full && slot.compare_exchange(raw, null_mut(), Ordering::Acquire, Ordering::Relaxed).is_ok();
            if won { owned(raw) } else { None }
        };
        self.0.iter().filter_map(take)
    }

    /// Takes out everything and lets nothing in any more.
    pub fn close(&self) -> impl Iterator<Item = Box<T>> + '_ {
        self.0.iter().filter_map(|slot| owned(slot.swap(closed(), Ordering::AcqRel)))
    }
}

/// Keeps a box, or gives it back when all slots are full or closed.
///
/// # Safety
/// `slots` is valid until one has taken the box. After that neither is touched: the box's next owner may let both go.
pub unsafe fn put<T>(slots: *const Slots<T>, item: Box<T>) -> Result<(), Box<T>> {
    let raw = Box::into_raw(item);
    for way in 0..WAYS {
        // SAFETY: no slot has the box yet, so the caller's promise holds.
        let slot = unsafe { &(&(*slots).0)[way] };
        let empty = slot.load(Ordering::Relaxed).is_null();
        if empty && slot.compare_exchange(null_mut(), raw, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return Ok(());
        }
    }
    // SAFETY: made of a box above, and no slot took it.
    Err(unsafe { Box::from_raw(raw) })
}

/// What a stack holds: it has room for a link.
pub trait Chained: Sized {
    /// The link, which the stack alone reads and writes.
    fn link(&mut self) -> &mut *mut Self;
}

/// Boxes that wait for somebody to take them all.
pub struct Stack<T: Chained>(AtomicPtr<T>);

impl<T: Chained> Stack<T> {
    pub fn new() -> Self {
        Stack(AtomicPtr::new(null_mut()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst).is_null()
    }

    pub fn push(&self, mut item: Box<T>) {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            *item.link() = head;
            let raw = Box::into_raw(item);
            match self.0.compare_exchange_weak(head, raw, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                // SAFETY: made of a box above, and the stack did not take it.
                Err(now) => (head, item) = (now, unsafe { Box::from_raw(raw) }),
            }
        }
    }

    /// All boxes, the last pushed first.
    pub fn take(&self) -> impl Iterator<Item = Box<T>> + use<T> {
        let mut head = if self.is_empty() { null_mut() } else { self.0.swap(null_mut(), Ordering::SeqCst) };
        std::iter::from_fn(move || {
            // SAFETY: the swap gave the whole chain to this iterator; each was pushed from a box.
            let mut item = (!head.is_null()).then(|| unsafe { Box::from_raw(head) })?;
            head = *item.link();
            Some(item)
        })
    }
}

impl<T: Chained> Drop for Stack<T> {
    fn drop(&mut self) {
        self.take().for_each(drop);
    }
}
