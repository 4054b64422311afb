//! The first level: answers in this process' memory, with a limit in bytes and a time to live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Answer, Digest, Eviction, Options};

#[derive(Clone)]
struct Kept {
    reply: Answer,
    until: Option<Instant>,
}

struct Expiry;

impl moka::Expiry<Digest, Kept> for Expiry {
    fn expire_after_create(&self, _: &Digest, kept: &Kept, now: Instant) -> Option<Duration> {
        kept.until.map(|until| until.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &Digest, kept: &Kept, now: Instant, _: Option<Duration>) -> Option<Duration> {
        kept.until.map(|until| until.saturating_duration_since(now))
    }
}

/// Answers removed, by cause.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) evicted: AtomicU64,
    pub(super) evicted_bytes: AtomicU64,
    pub(super) expired: AtomicU64,
}

/// Answers by key.
pub(super) struct First {
    kept: Cache<Digest, Kept>,
    pub(super) removed: Arc<Removed>,
    largest_bytes: usize,
}

impl First {
    pub(super) fn new(options: &Options) -> Self {
        let removed = Arc::new(Removed::default());
        let told = removed.clone();
        let policy = match options.eviction {
            Eviction::Lru => EvictionPolicy::lru(),
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
        };
        let kept = Cache::builder()
            .max_capacity(options.capacity_bytes)
            .weigher(|_, kept: &Kept| weight(&kept.reply))
            .eviction_policy(policy)
            .expire_after(Expiry)
            .eviction_listener(move |_, kept: Kept, cause| match cause {
                RemovalCause::Expired => drop(told.expired.fetch_add(1, Relaxed)),
                RemovalCause::Size => {
                    told.evicted.fetch_add(1, Relaxed);
                    told.evicted_bytes.fetch_add(weight(&kept.reply).into(), Relaxed);
                }
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            })
            .build();
        First { kept, removed, largest_bytes: options.largest_bytes.min(u32::MAX as usize) }
    }

    pub(super) fn find(&self, key: &Digest) -> Option<Answer> {
        // To the instant: what the cache below goes by is read from the clock a little later than what was promised.
        let kept = self.kept.get(key).filter(|kept| kept.until.is_none_or(|until| Instant::now() < until))?;
        Some(kept.reply)
    }

    /// Keeps an answer until a time (for as long as there is room without one). False when it is too large to be kept.
    pub(super) fn keep(&self, key: Digest, reply: Answer, until: Option<Instant>) -> bool {
        let fits = reply.size_bytes() <= self.largest_bytes;
        if fits {
            self.kept.insert(key, Kept { reply, until });
        }
        fits
    }

    pub(super) fn clear(&self) {
        self.kept.invalidate_all();
    }

    /// Answers and their bytes now.
    pub(super) fn usage(&self) -> (u64, u64) {
        self.kept.run_pending_tasks();
        (self.kept.entry_count(), self.kept.weighted_size())
    }
}

fn weight(reply: &Answer) -> u32 {
    u32::try_from(reply.size_bytes()).unwrap_or(u32::MAX)
}
