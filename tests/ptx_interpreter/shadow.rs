//! A block's shared memory, with a shadow: of each byte whether it was written, of each word the accesses that later ones may
//! race with.

use super::clocks::{Stamp, moment};
use super::entry::SHARED_BASE;
use super::{Kind, Result, fault};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    Write,
    /// Atomic with others of this kind.
    Atomic,
}

/// Who accesses, and how.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub actor: usize,
    pub moment: u32,
    pub what: What,
    /// Asynchronous, and not yet waited for.
    pub pending: bool,
    /// Through the asynchronous proxy.
    pub proxy: bool,
}

/// An access of some bytes of a word.
#[derive(Clone, Copy, Debug)]
struct Mark {
    access: Access,
    mask: u8,
}

#[derive(Clone, Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    written: Vec<bool>,
    words: Vec<Vec<Mark>>,
}

impl Shared {
    /// Memory whose addresses start at [`SHARED_BASE`] and end at `end`.
    pub fn new(end: u64) -> Shared {
        let n = (end - SHARED_BASE) as usize;
        Shared { bytes: vec![0xEE; n], written: vec![false; n], words: vec![Vec::new(); n.div_ceil(4)] }
    }

    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>> {
        let start = address.wrapping_sub(SHARED_BASE) as usize;
        if address >= SHARED_BASE && start + len <= self.bytes.len() {
            return Ok(start..start + len);
        }
        let end = SHARED_BASE as usize + self.bytes.len();
        fault(Kind::Bounds, format!("{len} bytes at {address:#x} of shared memory, which is {SHARED_BASE:#x}..{end:#x}"))
    }

    /// Checks and notes an access by one who knows `view`.
    pub fn touch(&mut self, address: u64, len: usize, access: Access, view: &Stamp) -> Result<()> {
        let range = self.range(address, len)?;
        if access.what != What::Write && !range.clone().all(|i| self.written[i]) {
            return fault(Kind::Uninitialised, format!("shared memory at {address:#x} is read before it is written"));
        }
        for word in range.start / 4..range.end.div_ceil(4) {
            let mask = (0..4).filter(|i| range.contains(&(word * 4 + i))).fold(0, |m, i| m | 1 << i);
            let marks = &mut self.words[word];
            for mark in marks.iter().filter(|m| m.mask & mask != 0) {
                check(mark.access, access, view, SHARED_BASE + word as u64 * 4)?;
            }
            marks.retain_mut(|mark| {
                let ordered = moment(&view.seen, mark.access.actor) >= mark.access.moment;
                let covers = match access.what {
                    What::Write => true,
                    What::Atomic => mark.access.what != What::Write,
                    What::Read => mark.access.what == What::Read,
                };
                if ordered && covers {
                    mark.mask &= !mask;
                }
                mark.mask != 0
            });
            marks.push(Mark { access, mask });
        }
        Ok(())
    }

    /// The pending accesses of `actor` there are done: they count as made by `by` at `moment`.
    pub fn finish(&mut self, address: u64, len: usize, actor: usize, by: usize, moment: u32) -> Result<()> {
        let range = self.range(address, len)?;
        for word in range.start / 4..range.end.div_ceil(4) {
            for mark in self.words[word].iter_mut().filter(|m| m.access.pending && m.access.actor == actor) {
                mark.access = Access { actor: by, moment, pending: false, ..mark.access };
            }
        }
        Ok(())
    }

    pub fn load(&self, address: u64, len: usize) -> Result<&[u8]> {
        Ok(&self.bytes[self.range(address, len)?])
    }

    pub fn store(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let range = self.range(address, bytes.len())?;
        self.written[range.clone()].fill(true);
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// Whether `next` may follow `prior`.
fn check(prior: Access, next: Access, view: &Stamp, address: u64) -> Result<()> {
    use What::*;
    let writes = next.what != Read;
    if prior.pending && (prior.what != Read || writes) {
        let why = format!("shared memory at {address:#x} is used while an asynchronous copy of it was not waited for");
        return fault(Kind::Unfinished, why);
    }
    let conflict = (prior.what != Read || writes) && !(prior.what == Atomic && next.what == Atomic);
    if !conflict {
        return Ok(());
    }
    if moment(&view.seen, prior.actor) < prior.moment {
        let why = format!("{:?} by {} races with {:?} by {}", next.what, next.actor, prior.what, prior.actor);
        return fault(Kind::Race, format!("shared memory at {address:#x}: {why}"));
    }
    if next.proxy && !prior.proxy && prior.what != Read && moment(&view.proxied, prior.actor) < prior.moment {
        return fault(Kind::Proxy, format!("shared memory at {address:#x} was written with no proxy fence since"));
    }
    Ok(())
}
