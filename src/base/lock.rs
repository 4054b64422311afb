//! Locks that a panic elsewhere does not poison: what they guard is whole after every statement.

use std::sync::{Mutex, MutexGuard};

/// Locks, whatever happened to other holders.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
