//! Looking for a while before sleeping. Waking a thread whose core has gone idle takes tens of microseconds and much of it is the waker's, so a
//! thread that will be called soon does better to look. For how long: as long as a wake takes costs at most twice the best choice (Karlin et
//! al., Competitive randomized algorithms for nonuniform problems, SODA 1990); where looking was in vain, half as long the next time.

use std::hint::spin_loop;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Of the order of waking an idle core (17 us where it was measured); 20 us were no better.
const MOST: Duration = Duration::from_micros(10);
/// Looking that costs nothing beside a sleep, so that it is tried again and again.
const LEAST: Duration = Duration::from_micros(1);

/// With one core only the thread that looks would run.
static HAS_CORES: LazyLock<bool> = LazyLock::new(|| available_parallelism().is_ok_and(|n| n.get() > 1));

/// For how long a thread looks.
#[derive(Clone, Copy)]
pub struct Spin {
    limit: Duration,
}

impl Spin {
    pub const fn new() -> Self {
        Spin { limit: MOST }
    }

    /// Looks until something is there, for at most `time`.
    pub fn until<T>(&mut self, time: Option<Duration>, look: impl Fn() -> Option<T>) -> Option<T> {
        let found = look();
        if found.is_some() || !*HAS_CORES {
            return found;
        }
        let (began, limit) = (Instant::now(), self.limit.min(time.unwrap_or(MOST)));
        while began.elapsed() < limit {
            for _ in 0..8 {
                spin_loop();
                let found = look();
                if found.is_some() {
                    self.limit = MOST;
                    return found;
                }
            }
        }
        self.limit = (self.limit / 2).max(LEAST);
        None
    }
}
