//! The reply slot: one value from one thread to another, one allocation, no lock. `tests/engine_loom.rs` goes through all orders of its
//! steps with loom.

use std::task::Waker;

use super::sync::{Arc, AtomicU8, Ordering, UnsafeCell};

/// Nobody waits; the waker is the receiver's.
const EMPTY: u8 = 0;
/// The receiver waits; the waker is the sender's.
const WAITING: u8 = 1;
/// The value is there and the receiver's, and so is the waker unless the sender came from `WAITING`.
const DONE: u8 = 2;

struct Slot<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: the state says which side may touch which cell, as the constants say; values and wakers go from thread to thread.
unsafe impl<T: Send> Sync for Slot<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Slot<T> {}

/// The end that gives the value.
pub struct Sender<T>(Arc<Slot<T>>);

/// The end that takes it.
pub struct Receiver<T>(Arc<Slot<T>>);

/// A slot's two ends.
pub fn slot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Slot { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None), waker: UnsafeCell::new(None) };
    let slot = Arc::new(slot);
    (Sender(slot.clone()), Receiver(slot))
}

impl<T> Sender<T> {
    /// Gives the value; who is to be woken, if the receiver waits.
    #[must_use = "the receiver waits"]
    pub fn send(self, value: T) -> Option<Waker> {
        // SAFETY: the receiver reads the value only after `DONE`, and this is the one sender, which goes with the call.
        self.0.value.with_mut(|cell| unsafe { *cell = Some(value) });
        if self.0.state.swap(DONE, Ordering::AcqRel) != WAITING {
            return None;
        }
        // SAFETY: the receiver gave the waker away when it set `WAITING`, and does not touch it after `DONE`.
        self.0.waker.with_mut(|cell| unsafe { (*cell).take() })
    }

    /// Whether the receiver is gone: nobody wants the value.
    pub fn is_unwanted(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl<T> Receiver<T> {
    /// Whether the value is there, or was.
    pub fn is_done(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == DONE
    }

    /// The value, once; until it is there, the sender will wake `waker`, the last one given.
    pub fn poll(&mut self, waker: &Waker) -> Option<T> {
        let state = &self.0.state;
        // A waker given before is taken back first. Failing means that the sender has it: the value is there.
        let own = state.compare_exchange(WAITING, EMPTY, Ordering::Acquire, Ordering::Acquire).unwrap_or_else(|other| other);
        if own != DONE {
            // SAFETY: the state is `EMPTY`, or was `WAITING` and is now: the waker is the receiver's.
            self.0.waker.with_mut(|cell| unsafe {
                if !(*cell).as_ref().is_some_and(|old| old.will_wake(waker)) {
                    *cell = Some(waker.clone());
                }
            });
            if state.compare_exchange(EMPTY, WAITING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return None;
            }
        }
        self.take()
    }

    /// The value, once, if it is there.
    pub fn take(&mut self) -> Option<T> {
        // SAFETY: the value is there, so the sender has done with it.
        if self.is_done() { self.0.value.with_mut(|cell| unsafe { (*cell).take() }) } else { None }
    }
}
