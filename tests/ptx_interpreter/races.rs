//! Races in global memory: of each sector of 32 bytes the accesses of this launch that later ones may race with. Lanes of one
//! warp are taken to be ordered among each other, but for stores of one instruction to the same place. Atomics and strong
//! accesses (`.relaxed`, `.acquire`, `.release`, `.volatile`) order what stands before them in one thread and after them in
//! another that sees them: relaxed ones what stands before a fence. That a fence follows a relaxed read is not checked.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::clocks::{Stamp, View};
use super::machine::Run;
use super::shadow::What;
use super::warp::{Place, Row, lanes};
use super::{Kind, Result, fault};

/// Sectors of a page, and its bytes.
const PAGE: usize = 64;
const PAGE_BITS: u32 = 11;
/// Reads of a sector by several clusters, beyond which only that there are many is remembered.
const MANY: usize = 8;

/// An access of some bytes of a sector by lanes of a warp.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Its number, or `u32::MAX`: read by many.
    cluster: u32,
    warp: u32,
    moment: u32,
    lanes: u32,
    bytes: u32,
    what: What,
}

type Marks = SmallVec<[Mark; 1]>;

/// The accesses of a launch.
#[derive(Default)]
pub(super) struct Races {
    pages: Vec<Vec<Marks>>,
    index: HashMap<u64, usize>,
    last: (u64, usize),
    /// Of each word that orders threads: what those of each cluster knew that have released it.
    flags: HashMap<u64, Vec<(usize, Stamp)>>,
}

impl Races {
    fn sector(&mut self, address: u64) -> &mut Marks {
        let page = address >> PAGE_BITS;
        if self.last.0 != page || self.pages.is_empty() {
            let next = self.pages.len();
            let index = *self.index.entry(page).or_insert(next);
            if index == next {
                self.pages.push(vec![Marks::new(); PAGE]);
            }
            self.last = (page, index);
        }
        &mut self.pages[self.last.1][(address >> 5) as usize % PAGE]
    }

    fn note(&mut self, sector: u64, new: Mark, view: &View) -> Result<()> {
        let synchronised = !self.flags.is_empty();
        let marks = self.sector(sector);
        let (mut joined, mut i) = (false, 0);
        while i < marks.len() {
            let mark = &mut marks[i];
            i += 1;
            let own = mark.cluster == new.cluster && mark.warp == new.warp;
            if own && mark.what == new.what && mark.moment == new.moment {
                (mark.lanes, mark.bytes) = (mark.lanes | new.lanes, mark.bytes | new.bytes);
                joined = true;
                continue;
            }
            if mark.bytes & new.bytes == 0 {
                continue;
            }
            let many = mark.cluster == u32::MAX;
            let ordered = own || !many && view.knows_of(mark.cluster, new.cluster, (mark.warp as usize, mark.lanes, mark.moment));
            let conflict = mark.what != new.what || new.what == What::Write;
            if conflict && !ordered && !(many && synchronised) {
                return race(sector, *mark, new);
            }
            let covers = new.what == What::Write || mark.what == new.what;
            if ordered && covers {
                mark.bytes &= !new.bytes;
            }
            if mark.bytes == 0 {
                i -= 1;
                marks.swap_remove(i);
            }
        }
        if !joined {
            marks.push(new);
        }
        let reads = |m: &&Mark| m.what == What::Read;
        if marks.len() > MANY && marks.iter().filter(reads).any(|m| m.cluster != new.cluster) {
            let bytes = marks.iter().filter(reads).fold(0, |all, m| all | m.bytes);
            let many = Mark { cluster: u32::MAX, bytes, what: What::Read, ..new };
            marks.retain(|m| m.what != What::Read);
            marks.push(many);
        }
        Ok(())
    }
}

#[cold]
fn race(sector: u64, prior: Mark, new: Mark) -> Result<()> {
    let who = |m: Mark| match m.cluster {
        u32::MAX => "reads by several blocks".into(),
        c => format!("{:?} by warp {} (lanes {:#x}) of cluster {c}", m.what, m.warp, m.lanes),
    };
    let at = sector + u64::from((prior.bytes & new.bytes).trailing_zeros());
    fault(Kind::Race, format!("global memory at {at:#x}: {} races with {}", who(new), who(prior)))
}

impl Run<'_> {
    /// Notes that lanes access global memory at their addresses.
    pub(super) fn note_row(&mut self, place: &Place, active: u32, addresses: &Row, bytes: usize, what: What) -> Result<()> {
        let full = if bytes >= 32 { u32::MAX } else { (1 << bytes) - 1 };
        let mut left = active;
        while left != 0 {
            let sector = addresses[left.trailing_zeros() as usize] & !31;
            let (mut mask, mut touched) = (0, 0);
            while left != 0 && addresses[left.trailing_zeros() as usize] & !31 == sector {
                let lane = left.trailing_zeros();
                let own = full << (addresses[lane as usize] & 31);
                if what == What::Write && touched & own != 0 {
                    return fault(Kind::Race, format!("lanes of a warp write the same at {:#x}", addresses[lane as usize]));
                }
                (mask, touched) = (mask | 1 << lane, touched | own);
                left &= left - 1;
            }
            self.note_sector(place, mask, sector, touched, what)?;
        }
        Ok(())
    }

    /// Notes that a lane accesses a range of global memory.
    pub(super) fn note_range(&mut self, place: &Place, lane: usize, at: u64, len: usize, what: What) -> Result<()> {
        let end = at + len as u64;
        for sector in (at & !31..end).step_by(32) {
            let (from, to) = (at.saturating_sub(sector), (end - sector).min(32));
            let touched = ((1u64 << to) - (1u64 << from)) as u32;
            self.note_sector(place, 1 << lane, sector, touched, what)?;
        }
        Ok(())
    }

    fn note_sector(&mut self, place: &Place, mask: u32, sector: u64, bytes: u32, what: What) -> Result<()> {
        let cluster = &self.clusters[place.cluster];
        for lanes in lanes_or_all(mask, cluster.clocks.alike(place.index)) {
            let view = cluster.clocks.view(place.index, lanes);
            let (cluster, warp) = (cluster.number as u32, place.index as u32);
            self.races.note(sector, Mark { cluster, warp, moment: view.moment, lanes, bytes, what }, &view)?;
        }
        Ok(())
    }

    /// The lanes order themselves by words of global memory: what they did is seen by those who acquire a word later, and they
    /// see what those did who have released it.
    pub(super) fn synchronise(&mut self, place: &Place, active: u32, addresses: &Row, (acquire, release): (bool, Option<bool>)) {
        let cluster = &mut self.clusters[place.cluster];
        let number = cluster.number;
        if acquire {
            for lane in lanes(active) {
                for (from, stamp) in self.races.flags.get(&addresses[lane]).into_iter().flatten() {
                    cluster.clocks.acquire_of(place.index, active, (*from != number).then_some(*from), stamp);
                }
            }
        }
        if let Some(all) = release {
            let mut stamp = Stamp::default();
            cluster.clocks.release(place.index, active, &mut stamp);
            let stamp = if all { stamp } else { stamp.only_fenced() };
            for lane in lanes(active) {
                let flag = self.races.flags.entry(addresses[lane]).or_default();
                match flag.iter_mut().find(|(c, _)| *c == number) {
                    Some((_, of)) => of.join(&stamp),
                    None => flag.push((number, stamp.clone())),
                }
            }
        }
    }
}

/// All lanes at once, or one by one.
fn lanes_or_all(mask: u32, all: bool) -> impl Iterator<Item = u32> {
    let whole = (all && mask != 0).then_some(mask);
    whole.into_iter().chain(lanes(if all { 0 } else { mask }).map(|l| 1 << l))
}
