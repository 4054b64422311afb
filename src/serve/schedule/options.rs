//! What a scheduler may do: limits, targets and the policy.

use std::time::Duration;

/// How the size and the moment of a batch are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Policy {
    /// Each request for itself.
    None,
    /// Batches of this many requests, and fewer only where the oldest has waited for [`Batching::max_wait`].
    #[allow(missing_docs)]
    Fixed { size: usize },
    /// What came within this time of the oldest request, up to the largest batch (TensorFlow Serving, Triton with a delay).
    #[allow(missing_docs)]
    Window { wait: Duration },
    /// All that waits, up to the largest batch, as soon as the device is free.
    Greedy,
    /// What lets the largest number of requests meet their deadlines, by the learned latency.
    #[default]
    Adaptive,
}

/// Settings of a scheduler. All may change while it runs.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Batching {
    /// How the size and the moment of a batch are chosen.
    pub policy: Policy,
    /// Latency that 99 of 100 requests should stay under; the deadline of a request that names none.
    pub target_p99: Duration,
    /// Fewer requests than this wait for others, for at most [`Batching::max_wait`] and while their deadlines allow.
    pub min_batch: usize,
    /// The most rows of a batch.
    pub max_batch: usize,
    /// How long requests wait for others where there are fewer than [`Batching::min_batch`], or than [`Policy::Fixed`] asks for.
    pub max_wait: Duration,
    /// The most requests that wait; more are rejected.
    pub queue_limit: usize,
    /// The largest share of a batch's elements that may be padding to the longest request's length, in [0, 1].
    pub max_padding: f64,
}

impl Default for Batching {
    fn default() -> Self {
        Batching {
            policy: Policy::Adaptive,
            target_p99: Duration::from_millis(20),
            min_batch: 1,
            max_batch: 64,
            max_wait: Duration::from_millis(2),
            queue_limit: 10_000,
            max_padding: 0.25,
        }
    }
}
