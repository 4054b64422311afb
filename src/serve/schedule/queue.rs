//! Requests by deadline, those with equal deadlines by arrival: runs of at most [`RUN`] entries, so that an insertion anywhere moves
//! at most one run, and one at either end is constant time.

use std::collections::VecDeque;

use super::request::Key;

/// Entries of a run.
const RUN: usize = 64;

/// An entry: when it is due and which it is. `order` breaks ties by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub deadline_ns: u64,
    pub key: Key,
}

impl Entry {
    /// Before `other`; serial numbers may wrap, so their distance decides.
    fn precedes(&self, other: &Entry) -> bool {
        let serial = |e: &Entry| (e.key.0 >> 32) as u32;
        match self.deadline_ns.cmp(&other.deadline_ns) {
            std::cmp::Ordering::Equal => (serial(self).wrapping_sub(serial(other)) as i32) < 0,
            order => order.is_lt(),
        }
    }
}

/// A sorted queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    runs: VecDeque<VecDeque<Entry>>,
    spare: Vec<VecDeque<Entry>>,
}

impl Queue {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.runs.iter().map(VecDeque::len).sum()
    }

    pub fn front(&self) -> Option<Entry> {
        self.runs.front().and_then(|run| run.front().copied())
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.runs.iter().flatten().copied()
    }

    /// The entry at a place of the order: linear in the runs before it.
    pub fn at(&self, mut place: usize) -> Option<Entry> {
        for run in &self.runs {
            match run.get(place) {
                Some(entry) => return Some(*entry),
                None => place -= run.len(),
            }
        }
        None
    }

    /// The run where an entry lies or belongs: the last that begins before or at it.
    fn run_of(&self, entry: &Entry) -> usize {
        let after = |run: &VecDeque<Entry>| run.front().is_some_and(|first| !entry.precedes(first));
        if self.runs.back().is_some_and(after) { self.runs.len() - 1 } else { self.runs.partition_point(after).saturating_sub(1) }
    }

    pub fn insert(&mut self, entry: Entry) {
        let mut at = self.run_of(&entry);
        if self.runs.is_empty() {
            self.add_run(0);
        } else if self.runs[at].len() == RUN {
            at = self.make_room(at, &entry);
        }
        let run = &mut self.runs[at];
        if run.back().is_none_or(|last| last.precedes(&entry)) {
            run.push_back(entry);
        } else {
            run.insert(run.partition_point(|e| e.precedes(&entry)), entry);
        }
    }

    /// Room for `entry` at the full run `at`: a new run behind it, into which its upper half goes unless the entry is the last.
    fn make_room(&mut self, at: usize, entry: &Entry) -> usize {
        self.add_run(at + 1);
        if self.runs[at].back().is_some_and(|last| last.precedes(entry)) {
            return at + 1;
        }
        for _ in 0..RUN / 2 {
            let last = self.runs[at].pop_back().expect("invariant: the run is full");
            self.runs[at + 1].push_front(last);
        }
        at + usize::from(self.runs[at + 1].front().is_some_and(|first| first.precedes(entry)))
    }

    fn add_run(&mut self, at: usize) {
        let run = self.spare.pop().unwrap_or_else(|| VecDeque::with_capacity(RUN));
        self.runs.insert(at, run);
    }

    #[cfg(test)]
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.runs.front_mut()?.pop_front();
        self.tidy(0);
        entry
    }

    /// Takes an entry out; false when it is not here.
    pub fn remove(&mut self, entry: &Entry) -> bool {
        let at = self.run_of(entry);
        let Some(run) = self.runs.get_mut(at) else { return false };
        let place = run.partition_point(|e| e.precedes(entry));
        if run.get(place) != Some(entry) {
            return false;
        }
        run.remove(place);
        self.tidy(at);
        true
    }

    /// Puts a run aside that has become empty.
    fn tidy(&mut self, at: usize) {
        if self.runs[at].is_empty() {
            self.spare.extend(self.runs.remove(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_whatever_is_inserted_and_removed() {
        let mut random = crate::base::xorshift::Xorshift::new(1);
        let (mut queue, mut model) = (Queue::default(), std::collections::BTreeSet::new());
        for serial in 1..20_000u64 {
            let deadline_ns = if random.below(2) == 0 { serial } else { random.below(20_000) as u64 / 8 };
            let key = Key(serial << 32);
            queue.insert(Entry { deadline_ns, key });
            model.insert((deadline_ns, key));
            if random.below(3) == 0 {
                let &(deadline_ns, key) = model.iter().nth(random.below(model.len().min(200))).unwrap();
                assert!(model.remove(&(deadline_ns, key)) && queue.remove(&Entry { deadline_ns, key }));
                assert!(!queue.remove(&Entry { deadline_ns, key }));
            }
            if random.below(3) == 0 {
                assert_eq!(queue.pop().map(|e| (e.deadline_ns, e.key)), model.pop_first());
            }
        }
        assert_eq!(queue.len(), model.len());
        assert!(queue.iter().map(|e| (e.deadline_ns, e.key)).eq(model.iter().copied()));
    }

    #[test]
    fn equal_deadlines_keep_their_order_when_serial_numbers_wrap() {
        let mut queue = Queue::default();
        let keys: Vec<Key> = (0..200u32).map(|i| Key(u64::from(u32::MAX - 100).wrapping_add(i.into()) << 32)).collect();
        keys.iter().for_each(|&key| queue.insert(Entry { deadline_ns: 7, key }));
        assert!(queue.iter().map(|e| e.key).eq(keys.iter().copied()));
    }
}
