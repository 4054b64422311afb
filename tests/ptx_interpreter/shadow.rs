//! A block's shared memory, with a shadow: of each byte whether it was written, of each word the accesses that later ones may
//! race with.

use smallvec::SmallVec;

use super::clocks::View;
use super::entry::SHARED_BASE;
use super::{Kind, Result, fault};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    Write,
    /// Atomic with others of this kind.
    Atomic,
}

/// An access, and who makes it: lanes of a warp, or another actor's lane 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub moment: u32,
    pub lanes: u32,
    pub actor: u16,
    pub what: What,
    /// Asynchronous, and not yet waited for.
    pub pending: bool,
    /// Through the asynchronous proxy.
    pub proxy: bool,
}

impl Access {
    /// By the lanes themselves.
    #[inline]
    pub fn own(view: &View, what: What) -> Access {
        Access { moment: view.moment, lanes: view.lanes, actor: view.warp as u16, what, pending: false, proxy: false }
    }

    #[inline]
    fn alike(&self, other: &Access) -> bool {
        Access { lanes: 0, ..*self } == Access { lanes: 0, ..*other }
    }
}

/// An access of some bytes of a word.
#[derive(Clone, Copy, Debug)]
struct Mark {
    access: Access,
    mask: u8,
}

/// The accesses of a word that later ones may race with.
type Marks = SmallVec<[Mark; 2]>;

#[derive(Clone, Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    /// Of each word, its bytes that were written.
    written: Vec<u8>,
    words: Vec<Marks>,
}

impl Shared {
    /// Memory whose addresses start at [`SHARED_BASE`] and end at `end`.
    pub fn new(end: u64) -> Shared {
        let n = (end - SHARED_BASE) as usize;
        Shared { bytes: vec![0xEE; n], written: vec![0; n.div_ceil(4)], words: vec![Marks::new(); n.div_ceil(4)] }
    }

    #[inline]
    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>> {
        let start = address.wrapping_sub(SHARED_BASE) as usize;
        if address >= SHARED_BASE && start + len <= self.bytes.len() {
            return Ok(start..start + len);
        }
        let end = SHARED_BASE as usize + self.bytes.len();
        fault(Kind::Bounds, format!("{len} bytes at {address:#x} of shared memory, which is {SHARED_BASE:#x}..{end:#x}"))
    }

    /// Checks and notes an access by one who knows `view`.
    #[inline]
    pub fn touch(&mut self, address: u64, len: usize, access: Access, view: &View) -> Result<()> {
        let range = self.range(address, len)?;
        for word in range.start / 4..range.end.div_ceil(4) {
            let mask = bytes_of(word, &range);
            if access.what != What::Write && self.written[word] & mask != mask {
                return fault(Kind::Uninitialised, format!("shared memory at {address:#x} is read before it is written"));
            }
            note(&mut self.words[word], Mark { access, mask }, view).map_err(|clash| clash.fault(word, access))?;
        }
        Ok(())
    }

    /// The pending accesses of `actor` there are done: they count as made by `by` at `moment`.
    pub fn finish(&mut self, address: u64, len: usize, (actor, lane): (usize, u32), by: usize, moment: u32) -> Result<()> {
        let range = self.range(address, len)?;
        for marks in &mut self.words[range.start / 4..range.end.div_ceil(4)] {
            let mine = |m: &&mut Mark| m.access.pending && m.access.actor == actor as u16 && m.access.lanes == lane;
            for mark in marks.iter_mut().filter(mine) {
                mark.access = Access { actor: by as u16, moment, pending: false, ..mark.access };
            }
        }
        Ok(())
    }

    #[inline]
    pub fn load(&self, address: u64, len: usize) -> Result<&[u8]> {
        Ok(&self.bytes[self.range(address, len)?])
    }

    #[inline]
    pub fn store(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let range = self.range(address, bytes.len())?;
        for word in range.start / 4..range.end.div_ceil(4) {
            self.written[word] |= bytes_of(word, &range);
        }
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// The bytes of a word that lie in the range.
#[inline]
fn bytes_of(word: usize, range: &std::ops::Range<usize>) -> u8 {
    let (from, to) = (range.start.saturating_sub(word * 4), (range.end - word * 4).min(4));
    ((1 << to) - (1 << from)) as u8
}

/// Two accesses that may not follow each other so.
struct Clash {
    prior: Access,
    kind: Kind,
}

impl Clash {
    fn fault(&self, word: usize, next: Access) -> super::Fault {
        let prior = self.prior;
        let why = match self.kind {
            Kind::Unfinished => "is used while an asynchronous copy of it was not waited for".into(),
            Kind::Proxy => "was written with no proxy fence since".into(),
            _ => {
                let who = |a: Access| format!("{:?} by warp {} (lanes {:#x})", a.what, a.actor, a.lanes);
                format!("{} races with {}", who(next), who(prior))
            }
        };
        super::Fault::new(self.kind, format!("shared memory at {:#x}: {why}", SHARED_BASE + word as u64 * 4))
    }
}

/// Adds an access to those of a word.
#[inline]
fn note(marks: &mut Marks, new: Mark, view: &View) -> std::result::Result<(), Clash> {
    let (mut joined, mut i) = (false, 0);
    while i < marks.len() {
        let mark = &mut marks[i];
        i += 1;
        if mark.mask & new.mask == 0 {
            continue;
        }
        let ordered = view.knows(mark.access.actor.into(), mark.access.lanes, mark.access.moment);
        check(mark.access, new.access, ordered, view)?;
        let covers = match new.access.what {
            What::Write => true,
            What::Atomic => mark.access.what != What::Write,
            What::Read => mark.access.what == What::Read && !mark.access.pending,
        };
        if covers && ordered {
            mark.mask &= !new.mask;
        } else if mark.mask == new.mask && mark.access.actor == new.access.actor && mark.access.what == new.access.what {
            if !new.access.pending && mark.access.alike(&new.access) {
                mark.access.lanes |= new.access.lanes;
                joined = true;
            } else if covers && !mark.access.pending {
                // What a lane did before is ordered before what it does now.
                mark.access.lanes &= !new.access.lanes;
            }
        }
        if mark.mask == 0 || mark.access.lanes == 0 {
            i -= 1;
            marks.swap_remove(i);
        }
    }
    if !joined {
        marks.push(new);
    }
    Ok(())
}

/// Whether `next` may follow `prior`.
#[inline]
fn check(prior: Access, next: Access, ordered: bool, view: &View) -> std::result::Result<(), Clash> {
    use What::*;
    let writes = next.what != Read;
    if prior.pending && (prior.what != Read || writes) {
        return Err(Clash { prior, kind: Kind::Unfinished });
    }
    let conflict = (prior.what != Read || writes) && !(prior.what == Atomic && next.what == Atomic);
    if !conflict {
        return Ok(());
    }
    if !ordered {
        return Err(Clash { prior, kind: Kind::Race });
    }
    let hidden = next.proxy && !prior.proxy && prior.what != Read;
    if hidden && !view.proxied(prior.actor.into(), prior.lanes, prior.moment) {
        return Err(Clash { prior, kind: Kind::Proxy });
    }
    Ok(())
}
