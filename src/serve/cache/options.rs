//! What a cache is told.

use std::time::Duration;

/// Which answers go when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// Those not used for the longest time.
    Lru,
    /// Those used less often than others (TinyLFU, arXiv 1512.00727): better where few requests are frequent and many are rare.
    #[default]
    TinyLfu,
}

/// Options of a cache.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of all answers in this process.
    pub capacity_bytes: u64,
    /// Bytes of the largest answer that is kept in this process.
    pub largest_bytes: usize,
    /// How long an answer is given after it was computed, on whichever level and by whichever process; for ever if `None`.
    pub ttl: Option<Duration>,
    /// Which answers go when there is no room.
    pub eviction: Eviction,
    /// A Redis server that processes share.
    pub second: Option<Second>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            capacity_bytes: 256 << 20,
            largest_bytes: 16 << 20,
            ttl: Some(Duration::from_secs(3600)),
            eviction: Eviction::default(),
            second: None,
        }
    }
}

/// Options of the second level.
#[derive(Clone)]
pub struct Second {
    /// As `redis://[user[:password]@]host[:port][/db]` or `redis+unix:///path`.
    pub url: String,
    /// Begins every key in Redis.
    pub namespace: String,
    /// The longest that a lookup may hold up a request that blocks; one that does not block is told after at most twice as long.
    pub budget: Duration,
    /// The longest that connecting may take, and that the server may take over a write. No request waits for either.
    pub patience: Duration,
    /// Bytes of the largest answer that is stored.
    pub largest_bytes: usize,
    /// Answers with fewer bytes are stored as they are.
    pub compress_from_bytes: usize,
    /// Lookups waiting at most; further ones are misses.
    pub waiting_lookups: usize,
    /// Bytes of answers waiting to be stored at most; further ones are not stored.
    pub waiting_bytes: usize,
    /// Failures in a row after which Redis is left alone.
    pub failures: u32,
    /// For how long it is left alone.
    pub open_for: Duration,
    /// Shared by all who use this server: nobody else can forge a value. All zeros protect against accidents alone.
    pub secret: [u8; 32],
}

impl Default for Second {
    fn default() -> Self {
        Second {
            url: "redis://127.0.0.1/".into(),
            namespace: "halfbyte".into(),
            budget: Duration::from_millis(5),
            patience: Duration::from_millis(500),
            largest_bytes: 256 << 10,
            compress_from_bytes: 1 << 10,
            waiting_lookups: 1024,
            waiting_bytes: 32 << 20,
            failures: 3,
            open_for: Duration::from_secs(1),
            secret: [0; 32],
        }
    }
}

impl std::fmt::Debug for Second {
    /// Without address and secret, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Second").field("namespace", &self.namespace).field("budget", &self.budget).finish_non_exhaustive()
    }
}
