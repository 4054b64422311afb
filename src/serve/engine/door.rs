//! Where the engine's thread and its callers meet: a state behind a lock, and the thread that sleeps when there is nothing to do. Waking is a
//! system call, so it is done only when the thread sleeps, and once. `tests/engine_loom.rs` goes through all orders of the steps with loom.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard};

/// A state, who works on it and who waits for that.
pub struct Door<T> {
    inside: Mutex<Inside<T>>,
    work: Condvar,
    idle: Condvar,
}

/// The state, for whoever holds the lock.
pub struct Inside<T> {
    state: T,
    thread: Thread,
    is_awaited: bool,
}

/// What the engine's thread does, or was told to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    Awake,
    Asleep,
    Napping,
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
        Door {
            inside: Mutex::new(Inside { state, thread: Thread::Awake, is_awaited: false }),
            work: Condvar::new(),
            idle: Condvar::new(),
        }
    }

    /// Locks, whatever happened to other holders: the state is whole after every statement.
    pub fn lock(&self) -> Guard<'_, T> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine's thread sleeps until it is woken, or for so long.
    pub fn sleep<'a>(&self, mut guard: Guard<'a, T>, time: Option<Duration>) -> Guard<'a, T> {
        guard.thread = Thread::Asleep;
        let mut guard = match time {
            Some(time) => self.work.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
        guard.thread = Thread::Awake;
        guard
    }

    /// The engine's thread sleeps for so long, or until it is woken for another reason than an offer.
    pub fn nap<'a>(&self, mut guard: Guard<'a, T>, time: Duration) -> Guard<'a, T> {
        guard.thread = Thread::Napping;
        let mut guard = self.work.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0;
        guard.thread = Thread::Awake;
        guard
    }

    /// Unlocks, and wakes the engine's thread if it sleeps and nobody woke it yet.
    pub fn wake(&self, mut guard: Guard<'_, T>) {
        let thread = std::mem::replace(&mut guard.thread, Thread::Awake);
        drop(guard);
        if thread != Thread::Awake {
            self.work.notify_one();
        }
    }

    /// Unlocks after an offer: wakes the engine's thread as [`Door::wake`] does, unless it looks by itself soon.
    pub fn offered(&self, guard: Guard<'_, T>) {
        if guard.thread == Thread::Asleep {
            self.wake(guard);
        }
    }

    /// Sleeps until nothing is done, or is woken without a reason.
    pub fn wait_idle<'a>(&self, mut guard: Guard<'a, T>) -> Guard<'a, T> {
        guard.is_awaited = true;
        self.idle.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for that.
    pub fn is_idle(&self, guard: &mut Guard<'_, T>) {
        if std::mem::take(&mut guard.is_awaited) {
            self.idle.notify_all();
        }
    }
}
