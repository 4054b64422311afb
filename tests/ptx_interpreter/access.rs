//! Loads, stores and atomics of every space.

use super::arithmetic::compute;
use super::clocks::View;
use super::entry::Instruction;
use super::machine::Run;
use super::number::Ty;
use super::op::{Arith, Atomic, Flags, Op, Space};
use super::operand::Operand;
use super::shadow::{Access, What};
use super::warp::{GENERIC_CONST, GENERIC_PARAM, GENERIC_SHARED, Place, Row, Warp, lanes};
use super::{Kind, Result, fault};

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Param(u64),
    Const(u64),
    Global(u64),
    /// In the block of this rank of the cluster.
    Shared(usize, u64),
}

/// What an address of a space stands for.
pub(super) fn spot(space: Space, address: u64, place: &Place) -> Result<Spot> {
    let shared = |address: u64| {
        let rank = if address >> 24 == 0 { place.block } else { (address >> 24) as usize - 1 };
        if rank < place.blocks_of_cluster {
            return Ok(Spot::Shared(rank, address & 0xff_ffff));
        }
        fault(Kind::Bounds, format!("{address:#x} is in the shared memory of no block"))
    };
    match space {
        Space::Param => Ok(Spot::Param(address)),
        Space::Const => Ok(Spot::Const(address)),
        Space::Global => Ok(Spot::Global(address)),
        Space::Shared if address >> 24 != 0 => {
            fault(Kind::Bounds, format!("{address:#x} is no address of this block's shared memory"))
        }
        Space::Shared | Space::Cluster => shared(address),
        Space::Generic if address & GENERIC_SHARED != 0 => shared(address & !GENERIC_SHARED),
        Space::Generic if address & GENERIC_PARAM != 0 => Ok(Spot::Param(address & !GENERIC_PARAM)),
        Space::Generic if address & GENERIC_CONST != 0 => Ok(Spot::Const(address & !GENERIC_CONST)),
        Space::Generic => Ok(Spot::Global(address)),
    }
}

/// How memory is accessed, and by whom: by lanes themselves, or by another actor at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub what: What,
    pub pending: bool,
    pub proxy: bool,
    pub actor: Option<(usize, u32)>,
}

impl Manner {
    pub fn of(what: What) -> Manner {
        Manner { what, pending: false, proxy: false, actor: None }
    }

    fn access(self, view: &View) -> Access {
        let Manner { what, pending, proxy, actor } = self;
        let own = Access { pending, proxy, ..Access::own(view, what) };
        match actor {
            Some((actor, moment)) => Access { actor: actor as u16, lanes: 1, moment, ..own },
            None => own,
        }
    }
}

impl Run<'_> {
    /// Checks and notes that lanes access shared memory now, or asynchronously.
    #[inline]
    pub(super) fn touch(&mut self, place: &Place, mask: u32, rank: usize, at: (u64, usize), manner: Manner) -> Result<()> {
        let cluster = &mut self.clusters[place.cluster];
        if rank != place.block && cluster.blocks[rank].live == 0 {
            return fault(Kind::Race, format!("{:#x} is in the shared memory of a block that has exited", at.0));
        }
        let shared = &mut cluster.blocks[rank].shared;
        if cluster.clocks.alike(place.index) {
            let view = cluster.clocks.view(place.index, mask);
            return shared.touch(at.0, at.1, manner.access(&view), &view);
        }
        lanes(mask).try_for_each(|lane| {
            let view = cluster.clocks.view(place.index, 1 << lane);
            shared.touch(at.0, at.1, manner.access(&view), &view)
        })
    }

    /// Reads at most 16 bytes for some lanes.
    #[inline]
    pub(super) fn load(&mut self, place: &Place, mask: u32, spot: Spot, len: usize) -> Result<&[u8]> {
        match spot {
            Spot::Param(at) => match self.params.get(at as usize..at as usize + len) {
                Some(bytes) => Ok(bytes),
                None => fault(Kind::Bounds, format!("{len} bytes at {at} of the parameters")),
            },
            Spot::Const(at) => match self.entry.constants.get(at as usize..at as usize + len) {
                Some(bytes) => Ok(bytes),
                None => fault(Kind::Bounds, format!("{len} bytes at {at} of the constants")),
            },
            Spot::Global(at) => self.global.load(at, len),
            Spot::Shared(rank, at) => {
                self.touch(place, mask, rank, (at, len), Manner::of(What::Read))?;
                self.clusters[place.cluster].blocks[rank].shared.load(at, len)
            }
        }
    }

    #[inline]
    pub(super) fn store(&mut self, place: &Place, lane: usize, spot: Spot, bytes: &[u8]) -> Result<()> {
        match spot {
            Spot::Param(_) | Spot::Const(_) => fault(Kind::Misuse, "parameters and constants are not written"),
            Spot::Global(at) => self.global.store(at, bytes),
            Spot::Shared(rank, at) => {
                self.touch(place, 1 << lane, rank, (at, bytes.len()), Manner::of(What::Write))?;
                self.clusters[place.cluster].blocks[rank].shared.store(at, bytes)
            }
        }
    }

    pub(super) fn access(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<()> {
        match i.op {
            Op::Load { space, ty, count, strong } => self.loads(warp, i, active, (space, ty, count), strong),
            Op::Store { space, ty, count, strong, releases } => {
                self.stores(warp, i, active, (space, ty, count), (strong, releases))
            }
            Op::Atomic { space, ty, returns, releases, .. } => {
                let addresses = warp.addresses(&i.operands[usize::from(returns)], active)?;
                self.order(&warp.place, active, (space, &addresses), ty.bytes(), (What::Atomic, Some(releases), returns))?;
                lanes(active).try_for_each(|lane| self.atomic(warp, i, lane))
            }
            _ => fault(Kind::Syntax, "no access"),
        }
    }

    /// Notes accesses of global memory, and how they order threads: whether they pass on what stands before them, all of it or
    /// what stands before a fence, and whether they take in what others have passed on.
    fn order(
        &mut self,
        place: &Place,
        active: u32,
        (space, addresses): (Space, &Row),
        bytes: usize,
        (what, releases, acquires): (What, Option<bool>, bool),
    ) -> Result<()> {
        let first = addresses[active.trailing_zeros() as usize];
        let shared = matches!(space, Space::Shared | Space::Cluster | Space::Param | Space::Const);
        if shared || (space == Space::Generic && first & (GENERIC_SHARED | GENERIC_PARAM | GENERIC_CONST) != 0) {
            return Ok(());
        }
        self.synchronise(place, active, addresses, (acquires, releases));
        self.note_row(place, active, addresses, bytes, what)
    }

    fn loads(
        &mut self,
        warp: &mut Warp,
        i: &Instruction,
        active: u32,
        (space, ty, count): (Space, Ty, usize),
        strong: bool,
    ) -> Result<()> {
        let (place, size) = (warp.place, ty.bytes());
        let to = parts(&i.operands[0], count)?;
        let addresses = warp.addresses(&i.operands[1], active)?;
        let mut values = [[0; 32]; 4];
        self.count(space, active, &addresses, size * count, false);
        let what = if strong { What::Atomic } else { What::Read };
        self.order(&place, active, (space, &addresses), size * count, (what, None, strong))?;
        // Lanes that read the same in runs, or with a period, read once.
        let period = [4, 8, 16].into_iter().find(|p| active == u32::MAX && addresses[*p..] == addresses[..32 - p]);
        let repeats = period.map_or(1, |p| (0..32).step_by(p).fold(0u32, |all, at| all | 1 << at));
        let mut left = period.map_or(active, |p| (1 << p) - 1);
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            let mut mask = repeats << lane;
            left &= left - 1;
            while left != 0 && addresses[left.trailing_zeros() as usize] == addresses[lane] {
                mask |= repeats << left.trailing_zeros();
                left &= left - 1;
            }
            let spot = aligned_at(space, addresses[lane], &place, size * count)?;
            let bytes = self.load(&place, mask, spot, size * count)?;
            for (n, row) in values[..count].iter_mut().enumerate() {
                let value = bits(&bytes[n * size..(n + 1) * size]);
                lanes(mask).for_each(|l| row[l] = value);
            }
        }
        to.iter().zip(&values).try_for_each(|(to, row)| warp.fill(to, active, ty, row))
    }

    fn stores(
        &mut self,
        warp: &mut Warp,
        i: &Instruction,
        active: u32,
        (space, ty, count): (Space, Ty, usize),
        (strong, releases): (bool, bool),
    ) -> Result<()> {
        self.polls = 0;
        let (place, size) = (warp.place, ty.bytes());
        let addresses = warp.addresses(&i.operands[0], active)?;
        self.count(space, active, &addresses, size * count, true);
        let what = if strong { What::Atomic } else { What::Write };
        self.order(&place, active, (space, &addresses), size * count, (what, strong.then_some(releases), false))?;
        let mut values = [[0; 32]; 4];
        for (row, from) in values.iter_mut().zip(parts(&i.operands[1], count)?) {
            *row = warp.values(from, active, ty)?;
        }
        for lane in lanes(active) {
            let spot = aligned_at(space, addresses[lane], &place, size * count)?;
            let mut bytes = [0; 32];
            for (n, row) in values[..count].iter().enumerate() {
                bytes[n * size..n * size + 8].copy_from_slice(&row[lane].to_le_bytes());
            }
            self.store(&place, lane, spot, &bytes[..size * count])?;
        }
        Ok(())
    }

    fn atomic(&mut self, warp: &mut Warp, i: &Instruction, lane: usize) -> Result<()> {
        let Op::Atomic { space, what, ty, returns, .. } = i.op else { return fault(Kind::Syntax, "no atomic") };
        self.polls = 0;
        let place = warp.place;
        let operands = &i.operands[usize::from(returns)..];
        let spot = aligned(warp, &operands[0], lane, space, ty.bytes())?;
        let value = |n: usize| warp.value(&operands[n], lane, ty);
        let (given, other) = (value(1)?, if what == Atomic::CompareSwap { value(2)? } else { 0 });
        let n = ty.bytes();
        let old = match spot {
            Spot::Param(_) | Spot::Const(_) => return fault(Kind::Misuse, "parameters and constants are not written"),
            Spot::Global(at) => bits(self.global.load(at, n)?),
            Spot::Shared(rank, at) => {
                self.touch(&place, 1 << lane, rank, (at, n), Manner::of(What::Atomic))?;
                bits(self.clusters[place.cluster].blocks[rank].shared.load(at, n)?)
            }
        };
        let new = updated(what, ty, old, given, other)?.to_le_bytes();
        match spot {
            Spot::Global(at) => self.global.store(at, &new[..n])?,
            Spot::Shared(rank, at) => self.clusters[place.cluster].blocks[rank].shared.store(at, &new[..n])?,
            Spot::Param(_) | Spot::Const(_) => {}
        }
        if returns { warp.set(&i.operands[0], lane, ty, old) } else { Ok(()) }
    }
}

/// Where an address is that must be a multiple of the access's bytes.
#[inline]
pub(super) fn aligned_at(space: Space, address: u64, place: &Place, bytes: usize) -> Result<Spot> {
    if address & (bytes as u64 - 1) != 0 {
        return fault(Kind::Misaligned, format!("{bytes} bytes at {address:#x}"));
    }
    spot(space, address, place)
}

/// As [`aligned_at`], of an operand.
pub(super) fn aligned(warp: &Warp, operand: &Operand, lane: usize, space: Space, bytes: usize) -> Result<Spot> {
    aligned_at(space, warp.address(operand, lane)?, &warp.place, bytes)
}

/// Little-endian bytes as bits.
#[inline]
pub(super) fn bits(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        _ => bytes.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b)),
    }
}

/// The operands of a vector of `count`.
fn parts(operand: &Operand, count: usize) -> Result<&[Operand]> {
    match operand {
        Operand::Vector(parts) if parts.len() == count => Ok(parts),
        one if count == 1 => Ok(std::slice::from_ref(one)),
        _ => fault(Kind::Syntax, format!("{count} registers are wanted")),
    }
}

/// What an atomic leaves in memory.
pub(super) fn updated(what: Atomic, ty: Ty, old: u64, given: u64, other: u64) -> Result<u64> {
    let simple = |a| compute(a, ty, Flags::default(), [old, given, 0, 0]);
    Ok(match what {
        Atomic::Add => simple(Arith::Add)?,
        Atomic::Min => simple(Arith::Min)?,
        Atomic::Max => simple(Arith::Max)?,
        Atomic::And => old & given,
        Atomic::Or => old | given,
        Atomic::Xor => old ^ given,
        Atomic::Exchange => given,
        Atomic::CompareSwap => {
            if old == given {
                other
            } else {
                old
            }
        }
        Atomic::Increment => {
            if old >= given {
                0
            } else {
                old + 1
            }
        }
        Atomic::Decrement => {
            if old == 0 || old > given {
                given
            } else {
                old - 1
            }
        }
    })
}
