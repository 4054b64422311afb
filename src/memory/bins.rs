//! Free ranges by size: a two-level bitmap over bins of sixteen to the octave, each bin sorted, so that the best fit is exact.

/// Sizes and addresses are multiples of this.
pub const UNIT: u64 = 256;
/// Bins of one power of two.
const STEPS: usize = 16;
const ROWS: usize = 53;

/// A free range: bytes, address, block. The order is that of preference: smallest first, then lowest.
pub type Entry = (u64, u64, u32);

/// Free ranges of one domain.
pub struct Bins {
    rows: u64,
    steps: [u16; ROWS],
    lists: Vec<Vec<Entry>>,
    bytes: u64,
    count: usize,
}

/// The row and the step of a size.
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

    /// Adds a range.
    pub fn insert(&mut self, entry: Entry) {
        let (row, step) = place(entry.0);
        let list = &mut self.lists[row * STEPS + step];
        let at = list.partition_point(|e| *e < entry);
        list.insert(at, entry);
        self.rows |= 1 << row;
        self.steps[row] |= 1 << step;
        self.bytes += entry.0;
        self.count += 1;
    }

    /// Takes a range out.
    pub fn remove(&mut self, entry: Entry) {
        let (row, step) = place(entry.0);
        let list = &mut self.lists[row * STEPS + step];
        let at = list.partition_point(|e| *e < entry);
        debug_assert_eq!(list.get(at), Some(&entry));
        list.remove(at);
        if list.is_empty() {
            self.steps[row] &= !(1 << step);
            if self.steps[row] == 0 {
                self.rows &= !(1 << row);
            }
        }
        self.bytes -= entry.0;
        self.count -= 1;
    }

    /// The smallest range of at least `bytes`, the lowest of these.
    pub fn best_fit(&self, bytes: u64) -> Option<Entry> {
        let (row, step) = place(bytes);
        let own = &self.lists[row * STEPS + step];
        if let Some(&entry) = own.get(own.partition_point(|e| e.0 < bytes)) {
            return Some(entry);
        }
        let later = self.steps[row] & (!1u16).checked_shl(step as u32).unwrap_or(0);
        if later != 0 {
            return self.lists[row * STEPS + later.trailing_zeros() as usize].first().copied();
        }
        let rows = self.rows & (!1u64 << row);
        let row = (rows != 0).then(|| rows.trailing_zeros() as usize)?;
        self.lists[row * STEPS + self.steps[row].trailing_zeros() as usize].first().copied()
    }

    /// Ranges of at least `bytes`, the smallest first.
    pub fn fitting(&self, bytes: u64) -> impl Iterator<Item = Entry> + '_ {
        let (row, step) = place(bytes);
        self.lists[row * STEPS + step..].iter().flatten().copied().filter(move |e| e.0 >= bytes)
    }

    /// The largest range.
    pub fn largest(&self) -> Option<Entry> {
        let row = self.rows.checked_ilog2()? as usize;
        self.lists[row * STEPS + self.steps[row].ilog2() as usize].last().copied()
    }

    /// All ranges, the largest first.
    pub fn descending(&self) -> impl Iterator<Item = Entry> + '_ {
        self.lists.iter().rev().flat_map(|list| list.iter().rev().copied())
    }

    /// Whether bitmaps, sums and order agree with the lists.
    pub fn consistent(&self) -> bool {
        let all: Vec<Entry> = self.lists.iter().flatten().copied().collect();
        let bits = self.lists.iter().enumerate().all(|(i, list)| {
            let (row, step) = (i / STEPS, i % STEPS);
            let marked = self.steps[row] >> step & 1 == 1;
            list.is_empty() != marked && list.iter().all(|e| place(e.0) == (row, step))
        });
        let rows = self.steps.iter().enumerate().all(|(row, s)| (*s != 0) == (self.rows >> row & 1 == 1));
        bits && rows && all.is_sorted() && all.len() == self.count && all.iter().map(|e| e.0).sum::<u64>() == self.bytes
    }
}
