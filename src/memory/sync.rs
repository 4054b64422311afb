//! The atomics of the lock-free part.

pub(super) use std::sync::atomic::{AtomicPtr, Ordering};
