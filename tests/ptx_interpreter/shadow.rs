//! A block's shared memory, with a shadow: of each byte whether it was written, of each word the accesses that later ones may
//! race with.

use std::ops::Range;

use smallvec::SmallVec;

use super::clocks::{Stamp, View};
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
}

/// An access of some bytes of a word, packed: the actor above, then flags, and the mask of bytes.
#[derive(Clone, Copy, Debug)]
struct Mark {
    moment: u32,
    lanes: u32,
    tag: u32,
}

const BYTES: u32 = 15;
const READ: u32 = 1 << 4;
const ATOMIC: u32 = 1 << 5;
const PENDING: u32 = 1 << 6;
const PROXY: u32 = 1 << 7;

impl Mark {
    #[inline]
    fn new(access: Access, mask: u8) -> Mark {
        let what = match access.what {
            What::Read => READ,
            What::Write => 0,
            What::Atomic => ATOMIC,
        };
        let flags = if access.pending { PENDING } else { 0 } | if access.proxy { PROXY } else { 0 };
        Mark { moment: access.moment, lanes: access.lanes, tag: u32::from(access.actor) << 8 | flags | what | u32::from(mask) }
    }

    #[inline]
    fn is(&self, flags: u32) -> bool {
        self.tag & flags != 0
    }

    #[inline]
    fn known(&self, view: &View) -> bool {
        view.knows(self.actor(), self.lanes, self.moment)
    }

    #[inline]
    fn actor(&self) -> usize {
        (self.tag >> 8) as usize
    }

    fn what(&self) -> What {
        match self.tag & (READ | ATOMIC) {
            READ => What::Read,
            ATOMIC => What::Atomic,
            _ => What::Write,
        }
    }

    fn who(&self) -> String {
        format!("{:?} by warp {} (lanes {:#x})", self.what(), self.actor(), self.lanes)
    }
}

/// The accesses of a word that later ones may race with.
type Marks = SmallVec<[Mark; 2]>;

#[derive(Clone, Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    /// Of each word, its bytes that were written.
    written: Vec<u8>,
    words: Vec<Marks>,
    /// Whether all accesses of 16 aligned bytes were of them all: then the first word's marks are those of all four.
    whole: Vec<bool>,
}

impl Shared {
    /// Memory whose addresses start at [`SHARED_BASE`] and end at `end`.
    pub fn new(end: u64) -> Shared {
        let n = (end - SHARED_BASE) as usize;
        Shared {
            bytes: vec![0xEE; n],
            written: vec![0; n.div_ceil(4)],
            words: vec![Marks::new(); n.div_ceil(4)],
            whole: vec![true; n / 16],
        }
    }

    /// The same memory, as new.
    pub fn renewed(mut self) -> Shared {
        self.written.fill(0);
        self.words.iter_mut().filter(|w| !w.is_empty()).for_each(Marks::clear);
        self.whole.fill(true);
        self
    }

    #[inline]
    fn range(&self, address: u64, len: usize) -> Result<Range<usize>> {
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
        if range.start % 16 == 0 && range.len() % 16 == 0 {
            return (range.start / 16..range.end / 16).try_for_each(|granule| self.touch_granule(granule, access, view));
        }
        for granule in range.start / 16..(range.end.div_ceil(16)).min(self.whole.len()) {
            if std::mem::take(&mut self.whole[granule]) {
                let marks = self.words[granule * 4].clone();
                (1..4).for_each(|i| self.words[granule * 4 + i].clone_from(&marks));
            }
        }
        for word in range.start / 4..range.end.div_ceil(4) {
            self.touch_word(word, bytes_of(word, &range), access, view)?;
        }
        Ok(())
    }

    /// 16 bytes that are accessed together.
    fn touch_granule(&mut self, granule: usize, access: Access, view: &View) -> Result<()> {
        let first = granule * 4;
        if self.whole[granule] {
            if access.what != What::Write && self.written[first..first + 4] != [15; 4] {
                return unwritten(first);
            }
            return self.touch_word(first, 15, access, view);
        }
        (first..first + 4).try_for_each(|word| self.touch_word(word, 15, access, view))?;
        if access.what == What::Write && self.words[first..first + 4].iter().all(|marks| marks.len() == 1) {
            self.words[first + 1..first + 4].iter_mut().for_each(Marks::clear);
            self.whole[granule] = true;
        }
        Ok(())
    }

    #[inline]
    fn touch_word(&mut self, word: usize, mask: u8, access: Access, view: &View) -> Result<()> {
        if access.what != What::Write && self.written[word] & mask != mask {
            return unwritten(word);
        }
        note(&mut self.words[word], Mark::new(access, mask), view).map_err(|clash| clash.fault(word))
    }

    /// The pending accesses of `actor` there are done: they count as made by `by` at `moment`.
    pub fn finish(&mut self, address: u64, len: usize, (actor, lane): (usize, u32), by: usize, moment: u32) -> Result<()> {
        let range = self.range(address, len)?;
        for marks in &mut self.words[range.start / 4..range.end.div_ceil(4)] {
            for mark in marks.iter_mut().filter(|m| m.is(PENDING) && m.actor() == actor && m.lanes == lane) {
                (mark.tag, mark.moment) = (mark.tag & (0xff & !PENDING) | (by as u32) << 8, moment);
            }
        }
        Ok(())
    }

    /// The memory of a block whose threads have exited: accesses by others than its `own` warps must be known to them.
    pub fn released(&self, own: &Range<usize>, exits: &Stamp) -> Result<()> {
        for (word, marks) in self.words.iter().enumerate() {
            // What an asynchronous access does to a barrier is ordered by the barrier itself.
            let foreign = |m: &&Mark| !own.contains(&m.actor()) && (!m.is(PROXY) || m.what() == What::Write);
            if let Some(mark) = marks.iter().filter(foreign).find(|m| !exits.has(m.actor(), m.lanes, m.moment)) {
                let (address, who) = (SHARED_BASE + word as u64 * 4, mark.who());
                return fault(Kind::Race, format!("{who} races with the exit of the block that has {address:#x}"));
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

#[cold]
fn unwritten(word: usize) -> Result<()> {
    let address = SHARED_BASE + word as u64 * 4;
    fault(Kind::Uninitialised, format!("shared memory at {address:#x} is read before it is written"))
}

/// The bytes of a word that lie in the range.
#[inline]
fn bytes_of(word: usize, range: &Range<usize>) -> u8 {
    let (from, to) = (range.start.saturating_sub(word * 4), (range.end - word * 4).min(4));
    ((1 << to) - (1 << from)) as u8
}

/// Two accesses that may not follow each other so.
struct Clash {
    prior: Mark,
    next: Mark,
    kind: Kind,
}

impl Clash {
    #[cold]
    fn fault(&self, word: usize) -> super::Fault {
        let why = match self.kind {
            Kind::Unfinished => "is used while an asynchronous copy of it was not waited for".into(),
            Kind::Proxy => "was written with no proxy fence since".into(),
            _ => format!("{} races with {}", self.next.who(), self.prior.who()),
        };
        super::Fault::new(self.kind, format!("shared memory at {:#x}: {why}", SHARED_BASE + word as u64 * 4))
    }
}

/// Adds an access to those of a word.
#[inline]
fn note(marks: &mut Marks, new: Mark, view: &View) -> std::result::Result<(), Clash> {
    // Most often: a read of what was written before, and read again.
    if let [write, read] = marks.as_mut_slice()
        && new.is(READ)
        && (write.tag ^ new.tag) & BYTES == 0
        && !write.is(READ | ATOMIC | PENDING)
        && !new.is(PROXY | PENDING)
        && read.is(READ)
        && write.known(view)
    {
        if read.tag == new.tag && read.moment == new.moment {
            read.lanes |= new.lanes;
            return Ok(());
        }
        if (read.tag ^ new.tag) & BYTES == 0 && !read.is(PENDING) && read.known(view) {
            *read = new;
            return Ok(());
        }
    }
    note_any(marks, new, view)
}

fn note_any(marks: &mut Marks, new: Mark, view: &View) -> std::result::Result<(), Clash> {
    let (mut joined, mut i) = (false, 0);
    while i < marks.len() {
        let mark = &mut marks[i];
        i += 1;
        if mark.tag & new.tag & BYTES == 0 {
            continue;
        }
        let ordered = mark.known(view);
        check(*mark, new, ordered, view)?;
        let covers = match new.what() {
            What::Write => true,
            What::Atomic => mark.is(READ | ATOMIC),
            What::Read => mark.is(READ) && !mark.is(PENDING),
        };
        if covers && ordered {
            mark.tag &= !(new.tag & BYTES);
        } else if mark.tag == new.tag && mark.moment == new.moment && !new.is(PENDING) {
            mark.lanes |= new.lanes;
            joined = true;
        } else if covers && !mark.is(PENDING) && mark.tag | PROXY == new.tag | PROXY {
            // What a lane did before is ordered before what it does now.
            mark.lanes &= !new.lanes;
        }
        if mark.tag & BYTES == 0 || mark.lanes == 0 {
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
fn check(prior: Mark, next: Mark, ordered: bool, view: &View) -> std::result::Result<(), Clash> {
    let writes = !next.is(READ);
    if prior.is(PENDING) && (!prior.is(READ) || writes) {
        return Err(Clash { prior, next, kind: Kind::Unfinished });
    }
    let conflict = (!prior.is(READ) || writes) && !(prior.is(ATOMIC) && next.is(ATOMIC));
    if !conflict {
        return Ok(());
    }
    if !ordered {
        return Err(Clash { prior, next, kind: Kind::Race });
    }
    let hidden = next.is(PROXY) && !prior.is(PROXY) && !prior.is(READ);
    if hidden && !view.proxied(prior.actor(), prior.lanes, prior.moment) {
        return Err(Clash { prior, next, kind: Kind::Proxy });
    }
    Ok(())
}
