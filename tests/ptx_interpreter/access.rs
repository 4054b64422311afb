//! Loads, stores and atomics of every space.

use super::arithmetic::compute;
use super::entry::Instruction;
use super::machine::Run;
use super::number::Ty;
use super::op::{Arith, Atomic, Flags, Op, Space};
use super::operand::Operand;
use super::shadow::{Access, What};
use super::warp::{GENERIC_PARAM, GENERIC_SHARED, Place, Warp, lanes};
use super::{Kind, Result, fault};

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Param(u64),
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
        Space::Global => Ok(Spot::Global(address)),
        Space::Shared if address >> 24 != 0 => {
            fault(Kind::Bounds, format!("{address:#x} is no address of this block's shared memory"))
        }
        Space::Shared | Space::Cluster => shared(address),
        Space::Generic if address & GENERIC_SHARED != 0 => shared(address & !GENERIC_SHARED),
        Space::Generic if address & GENERIC_PARAM != 0 => Ok(Spot::Param(address & !GENERIC_PARAM)),
        Space::Generic => Ok(Spot::Global(address)),
    }
}

impl Run<'_> {
    /// Checks and notes that a thread accesses shared memory now, or asynchronously.
    pub(super) fn touch(&mut self, place: &Place, lane: usize, rank: usize, at: (u64, usize), access: Access) -> Result<()> {
        let cluster = &mut self.clusters[place.cluster];
        let view = cluster.clocks.stamp(place.thread(lane));
        cluster.blocks[rank].shared.touch(at.0, at.1, access, view)
    }

    /// An access by the thread itself.
    pub(super) fn own(&self, place: &Place, lane: usize, what: What) -> Access {
        let actor = place.thread(lane);
        let moment = self.clusters[place.cluster].clocks.now(actor);
        Access { actor, moment, what, pending: false, proxy: false }
    }

    /// Reads at most 16 bytes.
    pub(super) fn load(&mut self, place: &Place, lane: usize, spot: Spot, len: usize) -> Result<[u8; 16]> {
        let mut bytes = [0; 16];
        let from = match spot {
            Spot::Param(at) => match self.params.get(at as usize..at as usize + len) {
                Some(bytes) => bytes,
                None => return fault(Kind::Bounds, format!("{len} bytes at {at} of the parameters")),
            },
            Spot::Global(at) => self.global.load(at, len)?,
            Spot::Shared(rank, at) => {
                self.touch(place, lane, rank, (at, len), self.own(place, lane, What::Read))?;
                self.clusters[place.cluster].blocks[rank].shared.load(at, len)?
            }
        };
        bytes[..len].copy_from_slice(from);
        Ok(bytes)
    }

    pub(super) fn store(&mut self, place: &Place, lane: usize, spot: Spot, bytes: &[u8]) -> Result<()> {
        self.polls = 0;
        match spot {
            Spot::Param(_) => fault(Kind::Misuse, "parameters are not written"),
            Spot::Global(at) => self.global.store(at, bytes),
            Spot::Shared(rank, at) => {
                self.touch(place, lane, rank, (at, bytes.len()), self.own(place, lane, What::Write))?;
                self.clusters[place.cluster].blocks[rank].shared.store(at, bytes)
            }
        }
    }

    pub(super) fn access(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<()> {
        let place = warp.place.clone();
        for lane in lanes(active) {
            match i.op {
                Op::Load { space, ty, count } => {
                    let spot = aligned(warp, &i.operands[1], lane, space, ty.bytes() * count)?;
                    let bytes = self.load(&place, lane, spot, ty.bytes() * count)?;
                    for (n, to) in parts(&i.operands[0], count)?.iter().enumerate() {
                        warp.set(to, lane, ty, bits(&bytes[n * ty.bytes()..][..ty.bytes()]))?;
                    }
                }
                Op::Store { space, ty, count } => {
                    let spot = aligned(warp, &i.operands[0], lane, space, ty.bytes() * count)?;
                    let mut bytes = [0; 16];
                    for (n, from) in parts(&i.operands[1], count)?.iter().enumerate() {
                        let value = warp.value(from, lane, ty)?.to_le_bytes();
                        bytes[n * ty.bytes()..][..ty.bytes()].copy_from_slice(&value[..ty.bytes()]);
                    }
                    self.store(&place, lane, spot, &bytes[..ty.bytes() * count])?;
                }
                _ => self.atomic(warp, i, lane)?,
            }
        }
        Ok(())
    }

    fn atomic(&mut self, warp: &mut Warp, i: &Instruction, lane: usize) -> Result<()> {
        let Op::Atomic { space, what, ty, returns } = i.op else { return fault(Kind::Syntax, "no atomic") };
        self.polls = 0;
        let place = warp.place.clone();
        let operands = &i.operands[usize::from(returns)..];
        let spot = aligned(warp, &operands[0], lane, space, ty.bytes())?;
        let value = |n: usize| warp.value(&operands[n], lane, ty);
        let (given, other) = (value(1)?, if what == Atomic::CompareSwap { value(2)? } else { 0 });
        let n = ty.bytes();
        let old = match spot {
            Spot::Param(_) => return fault(Kind::Misuse, "parameters are not written"),
            Spot::Global(at) => bits(self.global.load(at, n)?),
            Spot::Shared(rank, at) => {
                self.touch(&place, lane, rank, (at, n), self.own(&place, lane, What::Atomic))?;
                bits(self.clusters[place.cluster].blocks[rank].shared.load(at, n)?)
            }
        };
        let new = updated(what, ty, old, given, other)?.to_le_bytes();
        match spot {
            Spot::Global(at) => self.global.store(at, &new[..n])?,
            Spot::Shared(rank, at) => self.clusters[place.cluster].blocks[rank].shared.store(at, &new[..n])?,
            Spot::Param(_) => {}
        }
        if returns { warp.set(&i.operands[0], lane, ty, old) } else { Ok(()) }
    }
}

/// The address, which must be a multiple of the access's bytes.
pub(super) fn aligned(warp: &Warp, operand: &Operand, lane: usize, space: Space, bytes: usize) -> Result<Spot> {
    let address = warp.address(operand, lane)?;
    if !address.is_multiple_of(bytes as u64) {
        return fault(Kind::Misaligned, format!("{bytes} bytes at {address:#x}"));
    }
    spot(space, address, &warp.place)
}

/// Little-endian bytes as bits.
pub(super) fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b))
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
fn updated(what: Atomic, ty: Ty, old: u64, given: u64, other: u64) -> Result<u64> {
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
