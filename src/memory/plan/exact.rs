//! Whether all buffers fit into a capacity: depth-first search over placements built from below.
//!
//! Own work on ideas of Moffitt's MiniMalloc (ASPLOS 2023): every placement can be pushed down until each buffer rests on the floor or
//! on another buffer, so that only such **canonical** ones are searched, and sections bound what is left.
//!
//! - **Valleys.** In a run of sections whose floor is lower than both neighbours', a buffer that starts on the floor lies within the
//!   run, and whatever is placed elsewhere changes nothing there. The search takes one section of a valley and tries each buffer that
//!   may start there, then that none does (a gap, up to where the next could rest), so that each canonical placement is met once.
//!   Any valley will do: it takes the section with the fewest options, or where most attempts have failed.
//! - **Bounds.** At each section, the buffers to come end above the capacity or not even when only their lowest starts count.
//! - **Components.** Sections that no buffer to come joins are solved independently.
//! - **Memory.** A state (floors and buffers to come of a component) that was refuted is not searched again; it is named by 64 bits, so
//!   that one lookup in about 2^44 may be mistaken: an answer is never wrong, a refutation could be.
//! - **Twins.** Of buffers that are equal in span and size the first is placed first.
//! - **Restarts.** Orders of options and rules for sections take turns under a limit of nodes in Luby's sequence; the memory is kept.

use std::ops::Range;
use std::time::Instant;

use super::partial::{Partial, mix};

/// Most refuted states that are remembered.
const MEMORY: usize = 1 << 20;

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The buffers fit, and the offsets are there.
    Fits,
    /// They cannot.
    Impossible,
    /// The limit was reached.
    Unknown,
}

/// In which order buffers are tried, highest first.
#[derive(Debug, Clone, Copy)]
enum Order {
    Area,
    Span,
    Size,
    /// Most bytes alive at one time in its life, then area.
    Pressure,
}

/// Which section of the valleys is taken: lowest first. One without a choice always is.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Fewest options, then least slack.
    Options,
    /// Fewest options for each conflict ("dom/wdeg": Boussemart and others, "Boosting systematic search by weighting constraints", 2004).
    Conflicts,
    /// Lowest floor, then fewest options.
    Floor,
    /// Fewest options, then most conflicts.
    OptionsConflicts,
}

const ORDERS: [Order; 4] = [Order::Pressure, Order::Area, Order::Size, Order::Span];
const RULES: [Rule; 4] = [Rule::Options, Rule::Conflicts, Rule::Floor, Rule::OptionsConflicts];

/// A choice under way.
struct Frame {
    component: Range<usize>,
    mark: usize,
    name: u64,
    section: usize,
    /// Floor of the section when none of the options starts there, tried last.
    gap: Option<usize>,
    /// Its options, from this index of `Search::options` on, the next one last.
    options: usize,
    /// Components left to solve for the option under way: from this index of `Search::tasks` on.
    tasks: usize,
}

/// What the search knows between attempts.
pub struct Search {
    state: Partial,
    capacity: usize,
    /// For each buffer the twin that goes first.
    twin: Vec<Option<usize>>,
    pressure: Vec<usize>,
    priority: Vec<f64>,
    rule: Rule,
    refuted: Vec<u64>,
    frames: Vec<Frame>,
    options: Vec<usize>,
    tasks: Vec<Range<usize>>,
    tops: Vec<(usize, usize, usize)>,
    /// Nodes visited so far.
    pub nodes: u64,
    /// Of the first attempts.
    first_nodes: u64,
    limit: u64,
    deadline: Option<Instant>,
}

impl Search {
    /// Of buffers over `spans` of `sections`, sorted so that twins are neighbours, with 0 < `bytes`; until `deadline`.
    pub fn new(spans: Vec<Range<usize>>, bytes: Vec<usize>, sections: usize, nodes: u64, deadline: Option<Instant>) -> Self {
        let n = spans.len();
        let twin = (0..n).map(|i| i.checked_sub(1).filter(|&j| spans[j] == spans[i] && bytes[j] == bytes[i])).collect();
        let state = Partial::new(spans, bytes, sections);
        let pressure = state.spans.iter().map(|span| state.rest[span.clone()].iter().copied().max().unwrap_or(0)).collect();
        let memory = usize::try_from(nodes).map_or(MEMORY, |n| n.next_power_of_two().clamp(1, MEMORY));
        Search {
            state,
            capacity: 0,
            twin,
            pressure,
            priority: vec![0.0; n],
            rule: Rule::Options,
            refuted: vec![0; memory],
            frames: Vec::new(),
            options: Vec::new(),
            tasks: Vec::new(),
            tops: Vec::new(),
            nodes: 0,
            first_nodes: 2 * n as u64,
            limit: 0,
            deadline,
        }
    }

    /// Whether the buffers fit into `capacity`, with at most `nodes` more nodes. Where it says so, [`Self::offsets`] is the placement.
    pub fn solve(&mut self, capacity: usize, nodes: u64) -> Verdict {
        self.capacity = capacity;
        let end = self.nodes.saturating_add(nodes);
        for attempt in 0u64.. {
            let turn = attempt / (ORDERS.len() * RULES.len()) as u64;
            let nodes = self.first_nodes * luby(turn + 1);
            let order = ORDERS[attempt as usize % ORDERS.len()];
            self.rule = RULES[attempt as usize / ORDERS.len() % RULES.len()];
            self.rank(order, if turn > 0 { attempt } else { 0 });
            self.limit = end.min(self.nodes + nodes);
            match self.attempt() {
                Verdict::Unknown if self.nodes < end && !self.late() => {}
                verdict => return verdict,
            }
        }
        unreachable!("attempts end with the nodes")
    }

    /// Of each buffer, after `Verdict::Fits`.
    pub fn offsets(&self) -> &[usize] {
        &self.state.offsets
    }

    /// Whether the deadline has passed.
    pub fn late(&self) -> bool {
        self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Priorities by `order`, shaken by up to a quarter when there is a `seed`.
    fn rank(&mut self, order: Order, seed: u64) {
        for b in 0..self.priority.len() {
            let (bytes, span) = (self.state.bytes[b] as f64, self.state.spans[b].len() as f64);
            let priority = match order {
                Order::Area => bytes * span,
                Order::Span => span,
                Order::Size => bytes,
                Order::Pressure => self.pressure[b] as f64 + bytes * span * 1e-6,
            };
            let shake = (mix(mix(seed) ^ b as u64) >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
            self.priority[b] = if seed == 0 { priority } else { priority * (1.0 + 0.5 * shake) };
        }
    }

    /// One search from the bottom, under the limit of nodes.
    fn attempt(&mut self) -> Verdict {
        self.state.undo(0);
        self.frames.clear();
        self.options.clear();
        self.tasks.clear();
        let all = 0..self.state.floor.len();
        if all.clone().any(|s| self.state.rest[s] > self.capacity) {
            return Verdict::Impossible;
        }
        self.split(all);
        loop {
            if self.tasks.len() == self.frames.last().map_or(0, |f| f.tasks) {
                // The choice on top is solved, and its placements stay.
                let Some(solved) = self.frames.pop() else { return Verdict::Fits };
                self.options.truncate(solved.options);
                continue;
            }
            self.nodes += 1;
            if self.nodes > self.limit || self.nodes.is_multiple_of(256) && self.late() {
                return Verdict::Unknown;
            }
            let component = self.tasks.pop().unwrap_or(0..0);
            self.choose(component);
            if !self.advance() {
                return Verdict::Impossible;
            }
        }
    }

    /// The components of `within` become tasks.
    fn split(&mut self, mut within: Range<usize>) {
        while let Some(component) = self.state.component(within.clone()) {
            within.start = component.end;
            self.tasks.push(component);
        }
    }

    /// Takes the next option that may do of the topmost choice that has one; false when there is none at all.
    fn advance(&mut self) -> bool {
        while let Some(frame) = self.frames.last_mut() {
            self.state.undo(frame.mark);
            self.tasks.truncate(frame.tasks);
            if self.options.len() > frame.options {
                let buffer = self.options.pop().unwrap_or(0);
                self.state.put(buffer);
            } else if let Some(floor) = frame.gap.take() {
                self.state.raise(frame.section, floor);
            } else {
                let slot = frame.name as usize % self.refuted.len();
                self.refuted[slot] = frame.name;
                self.frames.pop();
                continue;
            }
            let component = frame.component.clone();
            if self.state.fits(&component, self.capacity) {
                self.split(component);
                return true;
            }
        }
        false
    }

    /// Opens the choice of a component: none of its options may do.
    fn choose(&mut self, component: Range<usize>) {
        let name = self.state.name(&component, self.capacity);
        let refuted = self.refuted[name as usize % self.refuted.len()] == name;
        let best = if refuted { None } else { self.section(&component) };
        let (section, gap) = best.unwrap_or((component.start, None));
        let options = self.options.len();
        if best.is_some() {
            let Search { state, twin, options: all, .. } = self;
            let may = |&b: &usize| state.low[b] == state.floor[section] && twin[b].is_none_or(|t| !state.is_open(t));
            all.extend(state.open(section).filter(may));
            self.options[options..].sort_by(|&a, &b| self.priority[a].total_cmp(&self.priority[b]).then(b.cmp(&a)));
        }
        self.frames.push(Frame { component, mark: self.state.mark(), name, section, gap, options, tasks: self.tasks.len() });
    }

    /// The section to choose at, and its floor if no buffer starts there; `None` where some section has no option at all.
    fn section(&mut self, component: &Range<usize>) -> Option<(usize, Option<usize>)> {
        let mut best = None;
        let mut start = component.start;
        while start < component.end {
            let floor = self.state.floor[start];
            let valley = start..(start..component.end).find(|&s| self.state.floor[s] != floor).unwrap_or(component.end);
            start = valley.end;
            let higher = |s: usize| !component.contains(&s) || self.state.floor[s] > floor;
            if !(valley.start == 0 || higher(valley.start - 1)) || !higher(valley.end) {
                continue;
            }
            self.tops.clear();
            for s in valley.clone() {
                let (options, gap) = self.options_at(s, &valley);
                if options == 0 {
                    self.state.conflicts[s] += 1;
                    return None;
                }
                let score = self.score(s, options);
                if best.is_none_or(|(least, _, _)| score < least) {
                    best = Some((score, s, gap));
                }
            }
        }
        best.map(|(_, section, gap)| (section, gap))
    }

    fn score(&self, section: usize, options: u64) -> (u64, u64) {
        let floor = self.state.floor[section];
        let slack = (self.capacity - floor - self.state.rest[section]) as u64;
        let conflicts = self.state.conflicts[section];
        match self.rule {
            Rule::Options => (options, slack),
            Rule::OptionsConflicts => (options, u64::MAX - conflicts),
            _ if options == 1 => (0, 0),
            Rule::Conflicts => (options * 1_000_000 / (conflicts + 1), slack),
            Rule::Floor => (floor as u64, options),
        }
    }

    /// How many options a section of a valley has, and the floor that the one of a gap would give it.
    fn options_at(&mut self, section: usize, valley: &Range<usize>) -> (u64, Option<usize>) {
        let Search { state, twin, .. } = &*self;
        let floor = state.floor[section];
        let (mut options, mut candidates, mut next) = (0, false, usize::MAX);
        for b in state.open(section) {
            if state.low[b] > floor {
                next = next.min(state.low[b]);
            } else {
                candidates = true;
                options += twin[b].is_none_or(|t| !state.is_open(t)) as u64;
            }
        }
        let highest = self.capacity - state.rest[section];
        if candidates && highest > floor {
            next = next.min(self.rest_beside(section, valley));
        }
        let gap = (next <= highest).then_some(next);
        (options + gap.is_some() as u64, gap)
    }

    /// Where a buffer over `section` could rest at best, if not on the floor of its valley: on a buffer to come beside it.
    fn rest_beside(&mut self, section: usize, valley: &Range<usize>) -> usize {
        let Search { state, tops, .. } = self;
        if tops.is_empty() {
            for s in valley.clone() {
                let begins = |b: &usize| state.spans[*b].start.max(valley.start) == s;
                let top = |b: usize| (state.low[b] + state.bytes[b], state.spans[b].start, state.spans[b].end);
                tops.extend(state.open(s).filter(begins).map(top));
            }
            tops.sort_unstable();
        }
        tops.iter().find(|&&(_, start, end)| !(start..end).contains(&section)).map_or(usize::MAX, |top| top.0)
    }
}

/// 1 1 2 1 1 2 4 1 1 2 ..., from index 1 (Luby, Sinclair and Zuckerman, "Optimal speedup of Las Vegas algorithms", 1993).
fn luby(index: u64) -> u64 {
    let half = (index + 1).next_power_of_two() / 2;
    if index + 1 == 2 * half { half } else { luby(index + 1 - half) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn luby_sequence() {
        assert_eq!((1..=15).map(super::luby).collect::<Vec<_>>(), [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]);
    }
}
