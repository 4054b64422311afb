//! What an allocator needs for a trace: measured by replaying it.

use std::time::Instant;

use super::peers::PolicyDef;
use super::policy::{Block, FreeSpace, Policy, Usage};
use super::trace::{Event, Trace};

/// A device that is full for nobody: cubecl sizes its pages by it.
const AMPLE_BYTES: u64 = 80 << 30;
/// A device beyond this many times the live bytes is not searched for.
const HOPELESS: u64 = 16;
/// The smallest device is found to this part of the live bytes.
const PRECISION: u64 = 4096;
/// Replays of which the fastest gives the time.
const ROUNDS: usize = 3;
/// How often a trace is replayed in one pool; calls of the second half count.
const PLAYS: usize = 6;

/// One allocator on one trace.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Figures {
    /// The trace.
    pub trace: String,
    /// The allocator.
    pub policy: &'static str,
    /// Allocations.
    pub allocations: usize,
    /// The most bytes live at once, as asked for.
    pub live_bytes: u64,
    /// The most bytes reserved at once with ample memory; `None` when even that was refused.
    pub reserved_bytes: Option<u64>,
    /// The smallest device on which the trace completes; `None` beyond 16 times the live bytes.
    pub smallest_bytes: Option<u64>,
    /// Driver calls per 1000 allocations with ample memory.
    pub calls_per_1000: f64,
    /// The same in the second half of the trace.
    pub steady_calls_per_1000: f64,
    /// The same when the trace is replayed again and again in one pool: of the last 3 of 6 times.
    pub repeated_calls_per_1000: Option<f64>,
    /// Driver calls per 1000 allocations on the smallest device.
    pub tight_calls_per_1000: Option<f64>,
    /// External fragmentation when the most bytes live, with ample memory.
    pub fragmentation: f64,
    /// Nanoseconds an allocation or free, with ample memory: the fastest of a few replays.
    pub ns_per_operation: f64,
}

impl Figures {
    /// Peak reserved over peak live, with ample memory.
    pub fn reserved_ratio(&self) -> Option<f64> {
        self.reserved_bytes.map(|b| b as f64 / self.live_bytes as f64)
    }

    /// Smallest device over peak live.
    pub fn smallest_ratio(&self) -> Option<f64> {
        self.smallest_bytes.map(|b| b as f64 / self.live_bytes as f64)
    }
}

/// Replays `trace`, with `look` after each request: the blocks by buffer, if it completed.
fn replay(policy: &mut dyn Policy, trace: &Trace, mut look: impl FnMut(usize, &dyn Policy)) -> Option<Vec<Block>> {
    let mut blocks: Vec<Block> = vec![0; trace.buffers()];
    for (at, event) in trace.events().iter().enumerate() {
        match *event {
            Event::Alloc { buffer, bytes } => blocks[buffer as usize] = policy.alloc(bytes)?,
            Event::Free { buffer } => policy.free(blocks[buffer as usize]),
        }
        look(at, policy);
    }
    Some(blocks)
}

fn allocations(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e, Event::Alloc { .. })).count()
}

/// Driver calls when a trace completes on a device of `capacity`.
fn calls_within(def: &PolicyDef, trace: &Trace, capacity: u64) -> Option<u64> {
    let mut policy = (def.make)(capacity);
    replay(&mut *policy, trace, |_, _| {}).map(|_| policy.usage().driver_calls)
}

/// The smallest device that completes the trace, and the driver calls on it. Bisection: a policy that fails on a device and completes
/// on a smaller one may be given the larger.
fn smallest(def: &PolicyDef, trace: &Trace, live: u64) -> Option<(u64, u64)> {
    let precision = (live / PRECISION).max(1);
    let (mut low, mut high) = (live - 1, live + live / 64 + 1);
    let mut calls = loop {
        match calls_within(def, trace, high) {
            Some(calls) => break calls,
            None if high >= live * HOPELESS => return None,
            None => (low, high) = (high, (3 * high - 2 * live).min(live * HOPELESS)),
        }
    };
    while high - low > precision {
        let middle = low + (high - low) / 2;
        match calls_within(def, trace, middle) {
            Some(fewer) => (high, calls) = (middle, fewer),
            None => low = middle,
        }
    }
    Some((high, calls))
}

/// What a replay with ample memory showed.
#[derive(Default)]
struct Ample {
    reserved_bytes: u64,
    calls: u64,
    calls_at_half: u64,
    at_peak: FreeSpace,
}

fn ample(def: &PolicyDef, trace: &Trace, capacity: u64, peak_at: usize) -> Option<Ample> {
    let mut seen = Ample::default();
    let half = trace.events().len() / 2;
    let mut policy = (def.make)(capacity);
    let done = replay(&mut *policy, trace, |at, policy| {
        if at + 1 == half {
            seen.calls_at_half = policy.usage().driver_calls;
        }
        if at == peak_at {
            seen.at_peak = policy.free_space();
        }
    });
    let Usage { peak_reserved_bytes, driver_calls, .. } = policy.usage();
    (seen.reserved_bytes, seen.calls) = (peak_reserved_bytes, driver_calls);
    done.map(|_| seen)
}

/// Driver calls of the last plays in one pool, all that a play leaves being freed after it.
fn repeated_calls(def: &PolicyDef, trace: &Trace, capacity: u64) -> Option<u64> {
    let mut left = vec![true; trace.buffers()];
    for event in trace.events() {
        if let Event::Free { buffer } = *event {
            left[buffer as usize] = false;
        }
    }
    let (mut policy, mut before) = ((def.make)(capacity), 0);
    for play in 0..PLAYS {
        if play == PLAYS / 2 {
            before = policy.usage().driver_calls;
        }
        let blocks = replay(&mut *policy, trace, |_, _| {})?;
        blocks.into_iter().zip(&left).filter(|(_, left)| **left).for_each(|(block, _)| policy.free(block));
    }
    Some(policy.usage().driver_calls - before)
}

fn fastest_ns(def: &PolicyDef, trace: &Trace, capacity: u64) -> f64 {
    let round = || {
        let mut policy = (def.make)(capacity);
        let start = Instant::now();
        replay(&mut *policy, trace, |_, _| {});
        start.elapsed().as_nanos() as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min) / trace.events().len().max(1) as f64
}

/// Everything about one allocator on one trace that allocates something.
pub fn evaluate(def: &PolicyDef, trace: &Trace) -> Figures {
    let (live_bytes, peak_at) = trace.live_peak();
    let capacity = AMPLE_BYTES.max(4 * live_bytes);
    let (all, late) = (trace.buffers(), allocations(&trace.events()[trace.events().len() / 2..]));
    let seen = ample(def, trace, capacity, peak_at);
    let smallest = smallest(def, trace, live_bytes);
    let per_1000 = |calls: u64, of: usize| calls as f64 * 1000.0 / of.max(1) as f64;
    let (reserved_bytes, seen) = (seen.as_ref().map(|s| s.reserved_bytes), seen.unwrap_or_default());
    Figures {
        trace: trace.name.clone(),
        policy: def.name,
        allocations: all,
        live_bytes,
        reserved_bytes,
        smallest_bytes: smallest.map(|s| s.0),
        calls_per_1000: per_1000(seen.calls, all),
        steady_calls_per_1000: per_1000(seen.calls - seen.calls_at_half, late),
        repeated_calls_per_1000: repeated_calls(def, trace, capacity).map(|calls| per_1000(calls, all * (PLAYS - PLAYS / 2))),
        tight_calls_per_1000: smallest.map(|s| per_1000(s.1, all)),
        fragmentation: seen.at_peak.fragmentation(),
        ns_per_operation: fastest_ns(def, trace, capacity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::replay::{Recorder, all};

    const MIB: u64 = 1 << 20;

    /// 30 MiB twice, both freed, then 60 MiB: 60 MiB live.
    fn grows() -> Trace {
        let mut to = Recorder::default();
        let blocks = [to.alloc(30 * MIB), to.alloc(30 * MIB)];
        to.free_all(blocks);
        let last = to.alloc(60 * MIB);
        to.free(last);
        to.finish("grows")
    }

    #[test]
    fn the_smallest_device_is_that_of_the_ladder() {
        let of = |name: &str| evaluate(all().find(|p| p.name == name).unwrap(), &grows());
        let torch = of("torch");
        assert_eq!((torch.live_bytes, torch.reserved_bytes, torch.allocations), (60 * MIB, Some(120 * MIB), 3));
        assert!((1.0..1.001).contains(&torch.smallest_ratio().unwrap()), "{torch:?}");
        assert!(torch.tight_calls_per_1000 > Some(torch.calls_per_1000), "a full device costs calls: {torch:?}");
        let same = of("ort-same");
        assert!((2.0..2.001).contains(&same.smallest_ratio().unwrap()), "nothing is given back: {same:?}");
        let cubecl = of("cubecl");
        assert!((4.0..4.01).contains(&cubecl.smallest_ratio().unwrap()), "60 MiB are at most a quarter: {cubecl:?}");
        assert_eq!((of("halfbyte").repeated_calls_per_1000, same.repeated_calls_per_1000), (Some(0.0), Some(0.0)));
        assert!(cubecl.reserved_ratio().unwrap() > 1.0 && cubecl.ns_per_operation > 0.0);
    }
}
