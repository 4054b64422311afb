//! Barriers in shared memory: phases of arrivals and of bytes that asynchronous copies bring.

use super::access::{Spot, spot};
use super::clocks::Stamp;
use super::entry::Instruction;
use super::execute::Next;
use super::machine::Run;
use super::number::Ty;
use super::op::{Op, Space};
use super::operand::Operand;
use super::shadow::What;
use super::warp::{Place, Warp, lanes};
use super::{Kind, Result, fault};

/// The most arrivals and bytes that a barrier counts.
const MOST: i64 = (1 << 20) - 1;

#[derive(Clone, Debug)]
pub(super) struct Mbarrier {
    /// Arrivals of a phase, and those that the current one still wants.
    count: i64,
    pending: i64,
    /// Bytes that the current phase still waits for.
    bytes: i64,
    pub phase: u64,
    /// Stands for the copies that complete on it; their moment is the phase's number, from 1.
    pub actor: usize,
    /// What those know who have arrived in the current phase, and in the last one.
    stamp: Stamp,
    last: Stamp,
}

impl Mbarrier {
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.stamp.sees(self.actor, self.phase as u32 + 1);
            self.last = self.stamp.clone();
            self.phase += 1;
            self.pending = self.count;
        }
    }
}

impl Run<'_> {
    /// The barrier at an address.
    pub(super) fn barrier_at(&mut self, c: usize, rank: usize, address: u64) -> Result<&mut Mbarrier> {
        match self.clusters[c].blocks[rank].mbarriers.get_mut(&address) {
            Some(barrier) => Ok(barrier),
            None => fault(Kind::Misuse, format!("there is no initialised barrier at {address:#x}")),
        }
    }

    /// The bytes have come, of those that the current phase waits for.
    pub(super) fn complete_bytes(&mut self, c: usize, rank: usize, address: u64, bytes: i64) -> Result<()> {
        self.polls = 0;
        let barrier = self.barrier_at(c, rank, address)?;
        barrier.bytes -= bytes;
        barrier.settle();
        Ok(())
    }

    fn place_of(&self, warp: &Warp, operand: &Operand, lane: usize, space: Space) -> Result<(usize, u64)> {
        let address = warp.address(operand, lane)?;
        if !address.is_multiple_of(8) {
            return fault(Kind::Misaligned, format!("a barrier at {address:#x}"));
        }
        match spot(space, address, &warp.place)? {
            Spot::Shared(rank, at) => Ok((rank, at)),
            _ => fault(Kind::Misuse, "a barrier lies in shared memory"),
        }
    }

    pub(super) fn mbarrier(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<Next> {
        let place = warp.place.clone();
        let mut polled = false;
        for lane in lanes(active) {
            let o = &i.operands;
            match i.op {
                Op::MbarrierInit => {
                    let (rank, at) = self.place_of(warp, &o[0], lane, Space::Cluster)?;
                    let count = warp.value(&o[1], lane, Ty::Bits(32))? as i64;
                    self.initialise(&place, lane, (rank, at), count)?;
                }
                Op::MbarrierInvalidate => {
                    let (rank, at) = self.place_of(warp, &o[0], lane, Space::Cluster)?;
                    self.touch(&place, lane, rank, (at, 8), self.own(&place, lane, What::Write))?;
                    self.barrier_at(place.cluster, rank, at)?;
                    self.clusters[place.cluster].blocks[rank].mbarriers.remove(&at);
                }
                Op::MbarrierExpect { .. } => {
                    let (rank, at) = self.place_of(warp, &o[0], lane, Space::Cluster)?;
                    let bytes = warp.value(&o[1], lane, Ty::Bits(32))? as i64;
                    self.arrive(&place, lane, (rank, at), 0, bytes)?;
                }
                Op::MbarrierArrive { expects, .. } => self.arrival(warp, i, lane, expects)?,
                _ => polled |= !self.poll(warp, i, lane)?,
            }
        }
        Ok(if polled { Next::Polled } else { Next::On })
    }

    fn initialise(&mut self, place: &Place, lane: usize, (rank, at): (usize, u64), count: i64) -> Result<()> {
        if !(1..=MOST).contains(&count) {
            return fault(Kind::Misuse, format!("a barrier of {count} arrivals"));
        }
        self.touch(place, lane, rank, (at, 8), self.own(place, lane, What::Write))?;
        let cluster = &mut self.clusters[place.cluster];
        let actor = cluster.clocks.actor();
        let (stamp, last) = Default::default();
        let barrier = Mbarrier { count, pending: count, bytes: 0, phase: 0, actor, stamp, last };
        cluster.blocks[rank].shared.store(at, &[0; 8])?;
        match cluster.blocks[rank].mbarriers.insert(at, barrier) {
            Some(_) => fault(Kind::Misuse, format!("the barrier at {at:#x} is initialised twice")),
            None => Ok(()),
        }
    }

    fn arrival(&mut self, warp: &mut Warp, i: &Instruction, lane: usize, expects: bool) -> Result<()> {
        let o = &i.operands;
        let place = warp.place.clone();
        let (rank, at) = self.place_of(warp, &o[1], lane, Space::Cluster)?;
        let given = match o.get(2) {
            Some(operand) => warp.value(operand, lane, Ty::Bits(32))? as i64,
            None => 1,
        };
        let phase = self.barrier_at(place.cluster, rank, at)?.phase;
        if expects {
            self.arrive(&place, lane, (rank, at), 1, given)?;
        } else {
            self.arrive(&place, lane, (rank, at), given, 0)?;
        }
        warp.set(&o[0], lane, Ty::Bits(64), phase)
    }

    /// Expects bytes, and then arrives.
    fn arrive(&mut self, place: &Place, lane: usize, (rank, at): (usize, u64), count: i64, bytes: i64) -> Result<()> {
        self.polls = 0;
        self.touch(place, lane, rank, (at, 8), self.own(place, lane, What::Atomic))?;
        let cluster = &mut self.clusters[place.cluster];
        let Some(barrier) = cluster.blocks[rank].mbarriers.get_mut(&at) else {
            return fault(Kind::Misuse, format!("there is no initialised barrier at {at:#x}"));
        };
        barrier.bytes += bytes;
        barrier.pending -= count;
        if barrier.pending < 0 || barrier.bytes > MOST {
            let why = format!("arrivals left {}, bytes awaited {}", barrier.pending, barrier.bytes);
            return fault(Kind::Misuse, format!("the barrier at {at:#x} overflows: {why}"));
        }
        cluster.clocks.release(place.thread(lane), &mut barrier.stamp);
        barrier.settle();
        Ok(())
    }

    /// Whether the phase is over.
    fn poll(&mut self, warp: &mut Warp, i: &Instruction, lane: usize) -> Result<bool> {
        let o = &i.operands;
        let place = warp.place.clone();
        let parity = matches!(i.op, Op::MbarrierWait { parity: true });
        let (rank, at) = self.place_of(warp, &o[1], lane, Space::Shared)?;
        let wanted = warp.value(&o[2], lane, Ty::Bits(if parity { 32 } else { 64 }))?;
        self.touch(&place, lane, rank, (at, 8), self.own(&place, lane, What::Atomic))?;
        let barrier = self.barrier_at(place.cluster, rank, at)?;
        let over = if parity { barrier.phase & 1 != wanted & 1 } else { barrier.phase != wanted };
        if over {
            let stamp = barrier.last.clone();
            self.clusters[place.cluster].clocks.acquire(place.thread(lane), &stamp);
        }
        warp.set(&o[0], lane, Ty::Pred, over.into())?;
        Ok(over)
    }
}
