//! What of each handle is free: that of which a window can make one range.

use std::collections::HashMap;

use super::granule::{Granule, Granules, Mapped};
use super::heap::{Block, BlockId, Domain, Heap};
use super::provider::Handle;

/// What is free at one end of a handle, and the block of the heap that it is part of.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct End {
    pub bytes: u64,
    pub id: BlockId,
}

/// A handle that is free at an end, or as a whole: then both ends are all of it.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Place {
    pub address: u64,
    pub front: End,
    pub back: End,
}

/// Handles that are free at an end.
pub(super) struct Idle {
    unit: u64,
    places: HashMap<Handle, Place>,
    /// Those that are free as a whole, from the smallest free ranges first, so that the largest stay whole.
    whole: Vec<Granule>,
    /// The others: bytes at their front and at their back, the fewest first.
    fronts: Vec<(u64, Granule)>,
    backs: Vec<(u64, Granule)>,
}

impl Idle {
    /// Of free blocks of these domains.
    pub fn of(heap: &Heap, granules: &Granules, domains: [Domain; 2]) -> Self {
        let (places, whole, fronts, backs) = Default::default();
        let mut idle = Idle { unit: granules.unit, places, whole, fronts, backs };
        for id in domains.into_iter().flat_map(|domain| heap.fitting(domain, 0)) {
            let block = heap.block(id);
            for mapped in granules.within(block.address, block.bytes) {
                idle.note(id, block, mapped);
            }
        }
        idle.fronts.sort_unstable_by_key(|f| f.0);
        idle.backs.sort_unstable_by_key(|b| b.0);
        idle
    }

    /// Notes that a handle is free where a block has it.
    fn note(&mut self, id: BlockId, block: Block, Mapped { address, granule }: Mapped) {
        let (size, none) = (self.size(&granule), End { bytes: 0, id });
        let place = self.places.entry(granule.handle).or_insert(Place { address, front: none, back: none });
        let (at_front, at_back) = (block.address <= address, block.end() >= address + size);
        if at_front {
            place.front = End { bytes: size.min(block.end() - address), id };
        }
        if at_back {
            place.back = End { bytes: size.min(address + size - block.address), id };
        }
        match (at_front, at_back) {
            (true, true) => self.whole.push(granule),
            (true, false) => self.fronts.push((place.front.bytes, granule)),
            (false, true) => self.backs.push((place.back.bytes, granule)),
            (false, false) => {}
        }
    }

    /// Bytes of a handle.
    pub fn size(&self, granule: &Granule) -> u64 {
        u64::from(granule.units) * self.unit
    }

    /// A handle that is free at an end.
    pub fn place(&self, granule: &Granule) -> Option<&Place> {
        self.places.get(&granule.handle)
    }

    /// The handles of a window behind which `bytes` are free in one piece: the index of the first. Else of the first of those up to the
    /// window's end, and how many bytes are missing.
    pub fn run(&self, handles: &[Granule], bytes: u64) -> (usize, u64) {
        let (mut first, mut have) = (0, 0);
        for (i, granule) in handles.iter().enumerate() {
            let (front, back) = self.place(granule).map_or((0, 0), |p| (p.front.bytes, p.back.bytes));
            match have {
                0 if back >= bytes => return (i, 0),
                1.. if have + front >= bytes => return (first, 0),
                _ => {}
            }
            (first, have) = match back {
                0 => (i + 1, 0),
                all if all == self.size(granule) => (first, have + all),
                part => (i, part),
            };
        }
        (first, bytes.saturating_sub(have))
    }

    /// Handles that have `bytes` one behind the other, to be mapped behind those of a window: one that is free at its back if
    /// `from_back`, whole ones, and then one that is free at its front.
    pub fn pick(&self, bytes: u64, window: &[Granule], from_back: bool) -> Option<Vec<Granule>> {
        let (mut missing, mut found, mut larger): (u64, Vec<Granule>, Option<Granule>) = (bytes, Vec::new(), None);
        if let Some((back, granule)) = self.backs.last().filter(|_| from_back) {
            found.push(*granule);
            missing = missing.saturating_sub(*back);
        }
        for granule in self.whole.iter().filter(|g| !window.contains(g)) {
            let size = self.size(granule);
            if size <= missing {
                found.push(*granule);
                missing -= size;
            } else if larger.is_none_or(|l| granule.units < l.units) {
                larger = Some(*granule);
            }
        }
        if missing > 0 {
            let fits = |f: &&(u64, Granule)| f.0 >= missing && !window.contains(&f.1) && !found.contains(&f.1);
            let is_first = window.is_empty() && found.is_empty();
            let last = self.fronts.iter().find(fits).filter(|_| !is_first).map(|f| f.1);
            found.push(last.or(larger.filter(|l| self.size(l) >= missing))?);
        }
        Some(found)
    }
}
