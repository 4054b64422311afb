//! A placement under construction, built from below, every step of which can be taken back.

use std::ops::Range;

/// A step to take back.
enum Change {
    Floor { section: usize, was: usize },
    Low { buffer: usize, was: usize },
    Placed { buffer: usize },
}

/// Buffers of `bytes` over spans of sections, some of which have their place. Nothing else may start below a section's floor.
pub struct Partial {
    /// The sections that each buffer covers.
    pub spans: Vec<Range<usize>>,
    /// Sizes.
    pub bytes: Vec<usize>,
    /// Where the placed buffers lie.
    pub offsets: Vec<usize>,
    /// For each section, where the lowest buffer to come may start at best.
    pub floor: Vec<usize>,
    /// For each section, bytes of the buffers to come.
    pub rest: Vec<usize>,
    /// For each buffer to come, where it may start at best: the highest floor under it.
    pub low: Vec<usize>,
    /// For each section, how often it was what refuted a placement.
    pub conflicts: Vec<u64>,
    /// For each section a set of `words` 64-bit words: the buffers to come that cover it.
    open: Vec<u64>,
    words: usize,
    /// For each section, a sum that names the set of buffers to come that begin there.
    name: Vec<u64>,
    /// Sections with a change that [`Self::fits`] has not looked at.
    changed: Vec<bool>,
    trail: Vec<Change>,
    starts: Vec<(usize, usize)>,
}

impl Partial {
    /// Nothing placed.
    pub fn new(spans: Vec<Range<usize>>, bytes: Vec<usize>, sections: usize) -> Self {
        let (n, words) = (spans.len(), spans.len().div_ceil(64));
        let mut new = Partial {
            spans,
            bytes,
            offsets: vec![0; n],
            floor: vec![0; sections],
            rest: vec![0; sections],
            low: vec![0; n],
            conflicts: vec![0; sections],
            open: vec![0; words * sections],
            words,
            name: vec![0; sections],
            changed: vec![false; sections],
            trail: Vec::new(),
            starts: Vec::new(),
        };
        (0..n).for_each(|b| new.reopen(b));
        new
    }

    /// The buffers to come that cover `section`.
    pub fn open(&self, section: usize) -> impl Iterator<Item = usize> + '_ {
        let words = &self.open[section * self.words..(section + 1) * self.words];
        words.iter().enumerate().flat_map(|(w, &word)| Bits(word).map(move |bit| w * 64 + bit))
    }

    /// Whether `buffer` has no place yet.
    pub fn is_open(&self, buffer: usize) -> bool {
        self.open[self.spans[buffer].start * self.words + buffer / 64] >> (buffer % 64) & 1 == 1
    }

    /// Sections joined by buffers to come: the first such run in `within`. What lies apart can be placed independently.
    pub fn component(&self, within: Range<usize>) -> Option<Range<usize>> {
        let start = within.clone().find(|&s| self.rest[s] > 0)?;
        let (mut section, mut end) = (start, start + 1);
        while section < end {
            end = self.open(section).fold(end, |end, b| end.max(self.spans[b].end));
            section += 1;
        }
        Some(start..end)
    }

    /// Names the state of a component: its floors and the buffers to come.
    pub fn name(&self, component: &Range<usize>, seed: usize) -> u64 {
        let section = |h: u64, s: usize| mix(h ^ (self.floor[s] as u64).rotate_left(20) ^ s as u64).wrapping_add(self.name[s]);
        component.clone().fold(mix(seed as u64), section)
    }

    /// Where the trail is now, for [`Self::undo`].
    pub fn mark(&self) -> usize {
        self.trail.len()
    }

    /// Places `buffer` as low as it can be.
    pub fn put(&mut self, buffer: usize) {
        let top = self.low[buffer] + self.bytes[buffer];
        self.offsets[buffer] = self.low[buffer];
        self.trail.push(Change::Placed { buffer });
        self.name[self.spans[buffer].start] ^= mix(buffer as u64);
        for s in self.spans[buffer].clone() {
            self.rest[s] -= self.bytes[buffer];
            self.open[s * self.words + buffer / 64] &= !(1 << (buffer % 64));
        }
        self.spans[buffer].clone().for_each(|s| self.raise(s, top));
    }

    /// Nothing to come starts below `floor` in `section`.
    pub fn raise(&mut self, section: usize, floor: usize) {
        if self.floor[section] >= floor {
            return;
        }
        self.set_floor(section, floor);
        self.changed[section] = true;
        for w in 0..self.words {
            for bit in Bits(self.open[section * self.words + w]) {
                self.lift(w * 64 + bit, floor);
            }
        }
    }

    fn lift(&mut self, buffer: usize, low: usize) {
        if self.low[buffer] < low {
            self.trail.push(Change::Low { buffer, was: self.low[buffer] });
            self.low[buffer] = low;
            self.changed[self.spans[buffer].clone()].fill(true);
        }
    }

    fn set_floor(&mut self, section: usize, floor: usize) {
        self.trail.push(Change::Floor { section, was: self.floor[section] });
        self.floor[section] = floor;
    }

    fn reopen(&mut self, buffer: usize) {
        self.name[self.spans[buffer].start] ^= mix(buffer as u64);
        for s in self.spans[buffer].clone() {
            self.rest[s] += self.bytes[buffer];
            self.open[s * self.words + buffer / 64] |= 1 << (buffer % 64);
        }
    }

    /// Takes back all that was done since `mark`.
    pub fn undo(&mut self, mark: usize) {
        while self.trail.len() > mark {
            match self.trail.pop() {
                Some(Change::Floor { section, was }) => self.floor[section] = was,
                Some(Change::Low { buffer, was }) => self.low[buffer] = was,
                Some(Change::Placed { buffer }) => self.reopen(buffer),
                None => {}
            }
        }
    }

    /// Looks at the changed sections of a component: false when the buffers to come cannot all end within `capacity` at one of them.
    /// Raises floors to the lowest start that is left.
    pub fn fits(&mut self, component: &Range<usize>, capacity: usize) -> bool {
        let mut fits = true;
        for s in component.clone() {
            let look = std::mem::take(&mut self.changed[s]) && fits && self.rest[s] > 0;
            if look && self.least_top(s, capacity) > capacity {
                self.conflicts[s] += 1;
                fits = false;
            }
        }
        fits
    }

    /// A bound on where the buffers to come end at `section`: one above the other in the order of their lowest starts, as on one
    /// machine with release dates. Exact only above `capacity`.
    fn least_top(&mut self, section: usize, capacity: usize) -> usize {
        let range = self.open(section).map(|b| self.low[b]).fold((usize::MAX, 0), |(l, h), x| (l.min(x), h.max(x)));
        if range.0 > self.floor[section] {
            self.set_floor(section, range.0);
        }
        let rest = self.rest[section];
        if range.0 + rest > capacity || range.1 + rest <= capacity {
            return range.0 + rest;
        }
        let mut starts = std::mem::take(&mut self.starts);
        starts.clear();
        starts.extend(self.open(section).map(|b| (self.low[b], self.bytes[b])));
        starts.sort_unstable();
        let top = starts.iter().fold(0, |top, &(low, bytes)| low.max(top) + bytes);
        self.starts = starts;
        top
    }
}

/// The set bits of a word, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < 64).then_some(bit)
    }
}

/// Scatters a number over 64 bits (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
