//! Where the engine's thread and its callers meet: a state behind a lock, and the thread that rests when there is nothing to do: it looks for a
//! while, then sleeps. Waking is a system call, so it is done only when somebody sleeps, and once. `tests/engine_loom.rs` goes through all orders
//! of the steps with loom.

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use super::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Spin};

/// A state, who works on it and who waits for that.
pub struct Door<T> {
    inside: Mutex<Inside<T>>,
    called: Called,
    work: Condvar,
    idle: Condvar,
}

/// Whether there is work, for the engine's thread while it looks: on a line of its own, since whoever has the lock writes to the lock's.
#[repr(align(128))]
struct Called(AtomicBool);

/// The state, for whoever holds the lock.
pub struct Inside<T> {
    state: T,
    is_sleeping: bool,
    waiting_for_idle: usize,
}

/// The lock.
pub type Guard<'a, T> = MutexGuard<'a, Inside<T>>;

impl<T> Deref for Inside<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.state
    }
}

impl<T> DerefMut for Inside<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.state
    }
}

impl<T> Door<T> {
    pub fn new(state: T) -> Self {
        let inside = Mutex::new(Inside { state, is_sleeping: false, waiting_for_idle: 0 });
        Door { inside, called: Called(AtomicBool::new(false)), work: Condvar::new(), idle: Condvar::new() }
    }

    /// Locks, whatever happened to other holders: the state is whole after every statement.
    pub fn lock(&self) -> Guard<'_, T> {
        let free = || match self.inside.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Ok(guard) => Some(guard),
        };
        // It is held for less than a wake takes.
        let guard = Spin::new().until(None, free);
        guard.unwrap_or_else(|| self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The engine's thread rests until it is woken, or for so long.
    pub fn rest<'a>(&'a self, guard: Guard<'a, T>, time: Option<Duration>, spin: &mut Spin) -> Guard<'a, T> {
        let called = &self.called.0;
        called.store(false, Ordering::Relaxed);
        drop(guard);
        let seen = spin.until(time, || called.load(Ordering::Relaxed).then_some(()));
        let mut guard = self.lock();
        // Written under the lock: what came since is seen here.
        if seen.is_some() || called.load(Ordering::Relaxed) {
            return guard;
        }
        guard.is_sleeping = true;
        let mut guard = match time {
            Some(time) => self.work.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
        guard.is_sleeping = false;
        guard
    }

    /// Unlocks, and calls the engine's thread if it rests and nobody called it yet.
    pub fn wake(&self, mut guard: Guard<'_, T>) {
        let is_sleeping = std::mem::take(&mut guard.is_sleeping);
        self.called.0.store(true, Ordering::Relaxed);
        drop(guard);
        if is_sleeping {
            self.work.notify_one();
        }
    }

    /// Sleeps until the engine's thread has nothing to do, or is woken without a reason.
    pub fn wait_idle<'a>(&self, mut guard: Guard<'a, T>) -> Guard<'a, T> {
        guard.waiting_for_idle += 1;
        let mut guard = self.idle.wait(guard).unwrap_or_else(PoisonError::into_inner);
        guard.waiting_for_idle -= 1;
        guard
    }

    /// Wakes who waits for that.
    pub fn is_idle(&self, guard: &Guard<'_, T>) {
        if guard.waiting_for_idle > 0 {
            self.idle.notify_all();
        }
    }
}
