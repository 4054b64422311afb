//! Free ranges by size: a two-level bitmap over bins of sixteen to the octave. A bin is an unordered array, so that adding and
//! taking out need no search; the best fit looks at one bin or two and is exact.

/// Sizes and addresses are multiples of this.
pub const UNIT: u64 = 256;
/// Bins of one power of two.
const STEPS: usize = 16;
const ROWS: usize = 53;

/// A free range: bytes, block.
pub type Entry = (u64, u32);

/// Free ranges of one domain.
pub struct Bins {
    rows: u64,
    steps: [u16; ROWS],
    lists: Vec<Vec<Entry>>,
    bytes: u64,
    count: usize,
}

/// The row and the step of a size.
#[inline]
fn place(bytes: u64) -> (usize, usize) {
    let units = (bytes / UNIT).max(1);
    if units < STEPS as u64 {
        return (0, units as usize);
    }
    let octave = units.ilog2();
    ((octave - 3) as usize, (units >> (octave - 4)) as usize & (STEPS - 1))
}

impl Default for Bins {
    fn default() -> Self {
        Bins { rows: 0, steps: [0; ROWS], lists: vec![Vec::new(); ROWS * STEPS], bytes: 0, count: 0 }
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

    /// Adds a range; its slot in the bin of its size.
    #[inline]
    pub fn insert(&mut self, entry: Entry) -> u32 {
        let (row, step) = place(entry.0);
        let list = &mut self.lists[row * STEPS + step];
        list.push(entry);
        self.rows |= 1 << row;
        self.steps[row] |= 1 << step;
        self.bytes += entry.0;
        self.count += 1;
        (list.len() - 1) as u32
    }

    /// Takes the range of `bytes` in `slot` out; the block that has this slot now, if another has.
    #[inline]
    pub fn remove(&mut self, bytes: u64, slot: u32) -> Option<u32> {
        let (row, step) = place(bytes);
        let list = &mut self.lists[row * STEPS + step];
        list.swap_remove(slot as usize);
        self.bytes -= bytes;
        self.count -= 1;
        if list.is_empty() {
            self.steps[row] &= !(1 << step);
            if self.steps[row] == 0 {
                self.rows &= !(1 << row);
            }
        }
        list.get(slot as usize).map(|e| e.1)
    }

    /// A smallest range of at least `bytes`.
    #[inline]
    pub fn best_fit(&self, bytes: u64) -> Option<Entry> {
        let (row, step) = place(bytes);
        if self.steps[row] >> step & 1 == 1 {
            let own = self.least(row, step, bytes);
            if own.is_some() {
                return own;
            }
        }
        let later = self.steps[row] & (!1u16 << step);
        if later != 0 {
            return self.least(row, later.trailing_zeros() as usize, 0);
        }
        let rows = self.rows & (!1u64 << row);
        let row = (rows != 0).then(|| rows.trailing_zeros() as usize)?;
        self.least(row, self.steps[row].trailing_zeros() as usize, 0)
    }

    /// A smallest range of a bin that has at least `bytes`. Ranges of the first two rows' bins are all of one size.
    #[inline]
    fn least(&self, row: usize, step: usize, bytes: u64) -> Option<Entry> {
        let list = &self.lists[row * STEPS + step];
        match row {
            0 | 1 => list.last().copied(),
            _ => list.iter().rev().filter(|e| e.0 >= bytes).min_by_key(|e| e.0).copied(),
        }
    }

    /// A largest range.
    pub fn largest(&self) -> Option<Entry> {
        let row = self.rows.checked_ilog2()? as usize;
        self.lists[row * STEPS + self.steps[row].ilog2() as usize].iter().max_by_key(|e| e.0).copied()
    }

    /// Ranges of at least `bytes`, the smallest first.
    pub fn fitting(&self, bytes: u64) -> Vec<Entry> {
        let (row, step) = place(bytes);
        let mut all: Vec<Entry> = self.lists[row * STEPS + step..].iter().flatten().copied().filter(|e| e.0 >= bytes).collect();
        all.sort_unstable();
        all
    }

    /// Whether bitmaps and sums agree with the lists.
    pub fn consistent(&self) -> bool {
        let bits = self.lists.iter().enumerate().all(|(i, list)| {
            let (row, step) = (i / STEPS, i % STEPS);
            let marked = self.steps[row] >> step & 1 == 1;
            list.is_empty() != marked && list.iter().all(|e| place(e.0) == (row, step))
        });
        let rows = self.steps.iter().enumerate().all(|(row, s)| (*s != 0) == (self.rows >> row & 1 == 1));
        let all = self.lists.iter().flatten();
        bits && rows && all.clone().count() == self.count && all.map(|e| e.0).sum::<u64>() == self.bytes
    }
}
