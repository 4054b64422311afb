//! From lifetimes to a placement.

use std::time::{Duration, Instant};

use super::clique::{max_live, sections};
use super::exact::{Search, Verdict};
use super::greedy::by_size;
use super::lifetime::Lifetime;
use crate::error::{Error, Result};

/// How much a placement may cost.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Every buffer starts on a multiple of this.
    pub align: usize,
    /// A height that is good enough. The bound on any height by default.
    pub target: usize,
    /// Nodes of the search that starts where the quick placement is above the target: the same on every machine.
    pub nodes: u64,
    /// Time after which the search stops. With it, placements may depend on the machine's load.
    pub time: Option<Duration>,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { align: 64, target: 0, nodes: 20_000, time: None }
    }
}

/// Where each buffer lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// In the order of the lifetimes.
    pub offsets: Vec<usize>,
    /// Size of the arena.
    pub bytes: usize,
    /// No placement needs less: the most bytes alive at one time, or more where a search has shown it.
    pub bound: usize,
    /// Nodes searched.
    pub nodes: u64,
}

/// Of the nodes, the attempts of the first pass get one in this many.
const SHARES: u64 = 8;

/// The first attempt may be above the target by one part in this many.
const NEAR: usize = 25;

/// A pass ends when the best is above what was refused by at most one part in this many.
const FINE: usize = 256;

/// Places `lifetimes`: quickly, then by search where that is above the bound. The height does not depend on the order of the lifetimes.
/// An error where their sizes together are more than an address can say.
pub fn place(lifetimes: &[Lifetime], effort: &Effort) -> Result<Placement> {
    let align = effort.align.max(1);
    let padded = |l: &Lifetime| Some(Lifetime { bytes: l.bytes.checked_next_multiple_of(align)?, ..*l });
    let mut all: Vec<(Lifetime, usize)> = Vec::with_capacity(lifetimes.len());
    let mut total = 0usize;
    for (i, life) in lifetimes.iter().enumerate().filter(|(_, l)| l.bytes > 0) {
        let sum = |life: Lifetime| Some((life, total.checked_add(life.bytes)?));
        let (life, sum) = padded(life).and_then(sum).ok_or_else(|| too_large(total))?;
        total = sum;
        all.push((life, i));
    }
    all.sort_unstable();
    let sorted: Vec<Lifetime> = all.iter().map(|(life, _)| *life).collect();
    let found = best(&sorted, effort);
    let mut offsets = vec![0; lifetimes.len()];
    all.iter().zip(&found.offsets).for_each(|((_, i), &at)| offsets[*i] = at);
    Ok(Placement { offsets, ..found })
}

fn too_large(total: usize) -> Error {
    Error::OutOfMemory { device: "planner".into(), needed_bytes: u64::MAX, available_bytes: (usize::MAX - total) as u64 }
}

/// Of lifetimes with padded sizes, sorted.
fn best(lifetimes: &[Lifetime], effort: &Effort) -> Placement {
    let offsets = by_size(lifetimes);
    let mut best = Placement { bytes: height(lifetimes, &offsets), offsets, bound: max_live(lifetimes), nodes: 0 };
    if best.bytes > best.bound.max(effort.target) && effort.nodes > 0 {
        improve(lifetimes, effort, &mut best);
    }
    best
}

fn height(lifetimes: &[Lifetime], offsets: &[usize]) -> usize {
    lifetimes.iter().zip(offsets).map(|(l, at)| at + l.bytes).max().unwrap_or(0)
}

/// Searches near the target, then in passes with ever more nodes: at the target, then halfway between what was refused and the best.
fn improve(lifetimes: &[Lifetime], effort: &Effort, best: &mut Placement) {
    let (spans, count) = sections(lifetimes);
    let deadline = effort.time.map(|t| Instant::now() + t);
    let mut search = Search::new(spans, lifetimes.iter().map(|l| l.bytes).collect(), count, effort.nodes, deadline);
    let mut attempt = |capacity: usize, nodes: u64, best: &mut Placement| {
        match search.solve(capacity, nodes.min(effort.nodes - search.nodes)) {
            Verdict::Fits => best.offsets.copy_from_slice(search.offsets()),
            Verdict::Impossible => best.bound = best.bound.max(capacity + 1),
            Verdict::Unknown => {}
        }
        best.bytes = height(lifetimes, &best.offsets);
        best.nodes = search.nodes;
        search.nodes < effort.nodes && !search.late()
    };
    let goal = |best: &Placement| best.bound.max(effort.target);
    let dive = 2 * lifetimes.len() as u64;
    let mut more = attempt(goal(best) + goal(best) / NEAR, dive, best);
    let mut share = (effort.nodes / SHARES).max(2 * dive);
    while more && best.bytes > goal(best) {
        let (mut low, mut capacity) = (goal(best), goal(best));
        while more && best.bytes > low {
            more = attempt(capacity, share, best);
            low = if best.bytes > capacity { capacity + 1 } else { low };
            if best.bytes <= low + best.bytes / FINE {
                break;
            }
            capacity = low + (best.bytes - low) / 2;
        }
        share *= 2;
    }
}
