//! Free ranges by size: a two-level bitmap over bins of 64 to the octave. A bin is a list through the rows of its blocks, so that adding
//! and taking out need no search and no memory; the best fit looks at one bin or two and is exact.

use super::table::{BlockId, NONE, Table};

/// Sizes and addresses are multiples of this.
pub const UNIT: u64 = 256;
/// Bins of one power of two; sizes of less than this many units have a bin each.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.ilog2();
const ROWS: usize = 51;

/// A free range: bytes, block.
pub type Entry = (u64, BlockId);

/// Free ranges of one domain.
pub struct Bins {
    rows: u64,
    steps: [u64; ROWS],
    heads: [[BlockId; STEPS]; ROWS],
    bytes: u64,
    count: usize,
}

/// The row and the step of a size.
#[inline]
fn place(bytes: u64) -> (usize, usize) {
    let units = bytes / UNIT;
    let octave = (units | (STEPS as u64 / 2)).ilog2();
    ((octave + 1 - STEP_BITS) as usize, (units >> octave.saturating_sub(STEP_BITS)) as usize % STEPS)
}

impl Default for Bins {
    fn default() -> Self {
        Bins { rows: 0, steps: [0; ROWS], heads: [[NONE; STEPS]; ROWS], bytes: 0, count: 0 }
    }
}

impl Bins {
    /// Sum of all ranges.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many ranges.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds a block.
    #[inline]
    pub(super) fn insert(&mut self, table: &mut Table, id: BlockId) {
        let bytes = table.bytes(id);
        let (row, step) = place(bytes);
        table.list(id, std::mem::replace(&mut self.heads[row][step], id));
        self.rows |= 1 << row;
        self.steps[row] |= 1 << step;
        self.bytes += bytes;
        self.count += 1;
    }

    /// Takes a block out.
    #[inline]
    pub(super) fn remove(&mut self, table: &mut Table, id: BlockId) {
        let bytes = table.bytes(id);
        self.bytes -= bytes;
        self.count -= 1;
        let (before, after) = table.unlist(id);
        if before != NONE {
            return;
        }
        let (row, step) = place(bytes);
        self.heads[row][step] = after;
        self.steps[row] &= !(u64::from(after == NONE) << step);
        self.rows &= !(u64::from(self.steps[row] == 0) << row);
    }

    /// A smallest range of at least `bytes`.
    #[inline]
    pub(super) fn best_fit(&self, table: &Table, bytes: u64) -> Option<Entry> {
        let (row, step) = place(bytes);
        let steps = self.steps[row] >> step;
        if steps & 1 == 1 {
            let own = self.least(table, row, step, bytes);
            if own.is_some() {
                return own;
            }
        }
        if steps > 1 {
            return self.least(table, row, step + (steps & !1).trailing_zeros() as usize, 0);
        }
        let rows = self.rows & (!1 << row);
        let row = (rows != 0).then(|| rows.trailing_zeros() as usize)?;
        self.least(table, row, self.steps[row].trailing_zeros() as usize, 0)
    }

    /// A smallest range of a bin that has at least `bytes`. Ranges of the first two rows' bins are all of one size.
    #[inline]
    fn least(&self, table: &Table, row: usize, step: usize, bytes: u64) -> Option<Entry> {
        let head = self.heads[row][step];
        if row < 2 {
            return Some((table.bytes(head), head));
        }
        let (mut best, mut id) = ((u64::MAX, NONE), head);
        while id != NONE {
            let (have, next) = (table.bytes(id), table.after(id));
            best = if have >= bytes && have < best.0 { (have, id) } else { best };
            id = next;
        }
        (best.1 != NONE).then_some(best)
    }

    /// A largest range.
    pub(super) fn largest(&self, table: &Table) -> Option<Entry> {
        let row = self.rows.checked_ilog2()? as usize;
        self.bin(table, row, self.steps[row].ilog2() as usize).max_by_key(|e| e.0)
    }

    /// Ranges of at least `bytes`, the smallest first.
    pub(super) fn fitting(&self, table: &Table, bytes: u64) -> Vec<Entry> {
        let (first, step) = place(bytes);
        let steps = |row: usize| if row == first { self.steps[row] >> step << step } else { self.steps[row] };
        let rows = ones(self.rows >> first << first);
        let bins = rows.flat_map(|row| ones(steps(row)).map(move |step| (row, step)));
        let mut all: Vec<Entry> = bins.flat_map(|(row, step)| self.bin(table, row, step)).filter(|e| e.0 >= bytes).collect();
        all.sort_unstable();
        all
    }

    fn bin<'a>(&self, table: &'a Table, row: usize, step: usize) -> impl Iterator<Item = Entry> + use<'a> {
        let listed = |id| (id != NONE).then_some(id);
        std::iter::successors(listed(self.heads[row][step]), move |&id| listed(table.after(id))).map(|id| (table.bytes(id), id))
    }

    /// Whether bitmaps and sums agree with the lists.
    pub(super) fn consistent(&self, table: &Table) -> bool {
        let bits = (0..ROWS * STEPS).all(|i| {
            let (row, step) = (i / STEPS, i % STEPS);
            let marked = self.steps[row] >> step & 1 == 1;
            (self.heads[row][step] != NONE) == marked && self.bin(table, row, step).all(|e| place(e.0) == (row, step))
        });
        let rows = self.steps.iter().enumerate().all(|(row, s)| (*s != 0) == (self.rows >> row & 1 == 1));
        let all = self.fitting(table, 0);
        bits && rows && all.len() == self.count && all.iter().map(|e| e.0).sum::<u64>() == self.bytes
    }
}

/// Places of the ones of a word, from below.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(at)
    })
}
