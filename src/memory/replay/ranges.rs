//! Free and used ranges of addresses, neighbours joined as they become free: the bookkeeping that all policies share.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::FreeSpace;

#[derive(Debug, Clone, Copy)]
struct Range {
    bytes: u64,
    used: bool,
}

/// Ranges by address, and the free ones by size.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    all: BTreeMap<u64, Range>,
    free: BTreeSet<(u64, u64)>,
    free_bytes: u64,
}

impl Ranges {
    /// Adds a free range and joins it with the free ones that touch it. Gives the whole: address and size.
    pub fn add(&mut self, address: u64, bytes: u64) -> (u64, u64) {
        let (mut start, mut size) = (address, bytes);
        if let Some((before, found)) =
            self.all.range(..address).next_back().map(|(a, r)| (*a, r.bytes)).filter(|(a, n)| a + n == address)
            && self.remove(before)
        {
            (start, size) = (before, size + found);
        }
        if let Some(found) = self.all.get(&(address + bytes)).map(|r| r.bytes)
            && self.remove(address + bytes)
        {
            size += found;
        }
        self.all.insert(start, Range { bytes: size, used: false });
        self.free.insert((size, start));
        self.free_bytes += size;
        (start, size)
    }

    /// Forgets the free range that begins at `address`. Whether there was one.
    pub fn remove(&mut self, address: u64) -> bool {
        let Some(range) = self.all.get(&address).copied().filter(|r| !r.used) else { return false };
        self.all.remove(&address);
        self.free.remove(&(range.bytes, address));
        self.free_bytes -= range.bytes;
        true
    }

    /// Uses the first `bytes` of the free range that begins at `address`; what is left of it stays free.
    pub fn take(&mut self, address: u64, bytes: u64) {
        let whole = self.all.get(&address).map_or(0, |r| r.bytes);
        debug_assert!(whole >= bytes, "{bytes} bytes of {whole}");
        self.remove(address);
        self.all.insert(address, Range { bytes, used: true });
        if whole > bytes {
            self.add(address + bytes, whole - bytes);
        }
    }

    /// Frees the used range at `address` and joins it with its free neighbours. Gives the whole: address and size.
    pub fn give(&mut self, address: u64) -> (u64, u64) {
        let bytes = self.all.remove(&address).map_or(0, |r| r.bytes);
        self.add(address, bytes)
    }

    /// The smallest free range of at least `bytes`, of equal ones the lowest: address and size.
    pub fn best_fit(&self, bytes: u64) -> Option<(u64, u64)> {
        self.free.range((bytes, 0)..).next().map(|&(size, address)| (address, size))
    }

    /// The lowest free range of at least `bytes`: address and size.
    pub fn first_fit(&self, bytes: u64) -> Option<(u64, u64)> {
        self.by_address().find(|r| r.1 >= bytes)
    }

    /// Free ranges by size, then address: address and size.
    pub fn by_size(&self, at_least: u64) -> impl Iterator<Item = (u64, u64)> {
        self.free.range((at_least, 0)..).map(|&(size, address)| (address, size))
    }

    /// Free ranges by address: address and size.
    pub fn by_address(&self) -> impl Iterator<Item = (u64, u64)> {
        self.all.iter().filter(|(_, r)| !r.used).map(|(&a, r)| (a, r.bytes))
    }

    /// The size of the free range that begins at `address`.
    pub fn free_at(&self, address: u64) -> Option<u64> {
        self.all.get(&address).filter(|r| !r.used).map(|r| r.bytes)
    }

    /// The free range that ends at `address`: address and size.
    pub fn free_before(&self, address: u64) -> Option<(u64, u64)> {
        let (&start, range) = self.all.range(..address).next_back()?;
        (!range.used && start + range.bytes == address).then_some((start, range.bytes))
    }

    /// What is free.
    pub fn free_space(&self) -> FreeSpace {
        FreeSpace { total_bytes: self.free_bytes, largest_bytes: self.free.last().map_or(0, |f| f.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn neighbours_join_whatever_the_order() {
        let mut ranges = Ranges::default();
        ranges.add(1000, 300);
        for at in [1000, 1100, 1200] {
            ranges.take(at, 100);
        }
        assert_eq!(ranges.best_fit(1), None);
        assert_eq!(ranges.give(1000), (1000, 100));
        assert_eq!(ranges.give(1200), (1200, 100));
        assert_eq!(ranges.best_fit(50), Some((1000, 100)), "of equal ones the lowest");
        assert_eq!(ranges.free_space(), FreeSpace { total_bytes: 200, largest_bytes: 100 });
        assert_eq!(ranges.give(1100), (1000, 300));
        assert_eq!(ranges.add(2000, 5), (2000, 5), "ranges that do not touch stay apart");
    }

    /// Against a map of single bytes.
    #[test]
    fn random_requests_agree_with_a_byte_map() {
        let mut random = Xorshift::new(3);
        let mut ranges = Ranges::default();
        ranges.add(0, 512);
        let (mut owner, mut live) = (vec![0u32; 512], Vec::new());
        for step in 1..5000u32 {
            let bytes = 1 + random.below(40) as u64;
            if random.below(2) == 0 && !live.is_empty() {
                let (at, n): (u64, u64) = live.swap_remove(random.below(live.len()));
                owner[at as usize..(at + n) as usize].fill(0);
                ranges.give(at);
            } else if let Some((at, whole)) = ranges.best_fit(bytes) {
                assert!(owner[at as usize..(at + whole) as usize].iter().all(|o| *o == 0));
                owner[at as usize..(at + bytes) as usize].fill(step);
                ranges.take(at, bytes);
                live.push((at, bytes));
            }
            let runs: Vec<u64> =
                owner.chunk_by(|a, b| (*a == 0) == (*b == 0)).filter(|c| c[0] == 0).map(|c| c.len() as u64).collect();
            let largest = runs.iter().copied().max().unwrap_or(0);
            assert_eq!(ranges.free_space(), FreeSpace { total_bytes: runs.iter().sum(), largest_bytes: largest });
            assert_eq!(ranges.by_address().map(|r| r.1).collect::<Vec<_>>(), runs);
        }
    }
}
