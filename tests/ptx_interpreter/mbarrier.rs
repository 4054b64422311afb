//! Barriers in shared memory: phases of arrivals and of bytes that asynchronous copies bring.

use super::access::{Manner, Spot, aligned_at};
use super::clocks::Stamp;
use super::entry::Instruction;
use super::execute::Next;
use super::machine::Run;
use super::number::Ty;
use super::op::{Op, Space};
use super::operand::Operand;
use super::shadow::What;
use super::warp::{Place, Warp, groups, lanes};
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
    /// An arrival that passes nothing on.
    pub fn arrive_once(&mut self, at: u64) -> Result<()> {
        self.pending -= 1;
        if self.pending < 0 {
            return fault(Kind::Misuse, format!("the barrier at {at:#x} has more arrivals than it counts"));
        }
        self.settle();
        Ok(())
    }

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

    /// Where each lane's barrier is.
    fn places(&self, warp: &Warp, operand: &Operand, mask: u32, space: Space) -> Result<[(usize, u64); 32]> {
        let addresses = warp.addresses(operand, mask)?;
        let mut found = [(0, 0); 32];
        for lane in lanes(mask) {
            found[lane] = match aligned_at(space, addresses[lane], &warp.place, 8)? {
                Spot::Shared(rank, at) => (rank, at),
                _ => return fault(Kind::Misuse, "a barrier lies in shared memory"),
            };
        }
        Ok(found)
    }

    pub(super) fn mbarrier(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<Next> {
        let place = warp.place;
        let o = &i.operands;
        let wide = Ty::Bits(64);
        let own = matches!(i.op, Op::MbarrierArrive { .. } | Op::MbarrierWait { .. });
        let space = if matches!(i.op, Op::MbarrierWait { .. }) { Space::Shared } else { Space::Cluster };
        let at = self.places(warp, &o[usize::from(own)], active, space)?;
        let given = match (i.op, o.get(if own { 2 } else { 1 })) {
            (Op::MbarrierInvalidate, _) | (_, None) => [1; 32],
            (Op::MbarrierWait { parity: false }, Some(operand)) => warp.values(operand, active, wide)?,
            (_, Some(operand)) => warp.values(operand, active, Ty::Bits(32))?,
        };
        let mut result = [0; 32];
        for (lane, mask) in groups(active, |l| (at[l], given[l])) {
            let (rank, address) = at[lane];
            let n = given[lane] as i64;
            if let Op::MbarrierArrive { drops: true, expects, .. } = i.op {
                self.barrier_at(place.cluster, rank, address)?.count -=
                    if expects { 1 } else { n } * i64::from(mask.count_ones());
            }
            let value = match i.op {
                Op::MbarrierInit => {
                    lanes(mask).try_for_each(|lane| self.initialise(&place, lane, at[lane], n))?;
                    0
                }
                Op::MbarrierInvalidate => {
                    self.touch(&place, mask, rank, (address, 8), Manner::of(What::Write))?;
                    self.barrier_at(place.cluster, rank, address)?;
                    self.clusters[place.cluster].blocks[rank].mbarriers.remove(&address);
                    0
                }
                Op::MbarrierExpect { .. } => self.arrive(&place, mask, at[lane], 0, n)?,
                Op::MbarrierArrive { expects: true, .. } => self.arrive(&place, mask, at[lane], 1, n)?,
                Op::MbarrierArrive { .. } => self.arrive(&place, mask, at[lane], n, 0)?,
                _ => self.poll(&place, mask, at[lane], (given[lane], i.op == Op::MbarrierWait { parity: true }))?.into(),
            };
            lanes(mask).for_each(|l| result[l] = value);
        }
        match i.op {
            Op::MbarrierArrive { .. } => warp.fill(&o[0], active, wide, &result)?,
            Op::MbarrierWait { .. } => {
                warp.fill(&o[0], active, Ty::Pred, &result)?;
                return Ok(if lanes(active).any(|l| result[l] == 0) { Next::Polled } else { Next::On });
            }
            _ => {}
        }
        Ok(Next::On)
    }

    fn initialise(&mut self, place: &Place, lane: usize, (rank, at): (usize, u64), count: i64) -> Result<()> {
        if !(1..=MOST).contains(&count) {
            return fault(Kind::Misuse, format!("a barrier of {count} arrivals"));
        }
        self.touch(place, 1 << lane, rank, (at, 8), Manner::of(What::Write))?;
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

    /// Each lane expects bytes, and then arrives. Gives the phase.
    fn arrive(&mut self, place: &Place, mask: u32, (rank, at): (usize, u64), count: i64, bytes: i64) -> Result<u64> {
        self.polls = 0;
        self.touch(place, mask, rank, (at, 8), Manner::of(What::Atomic))?;
        let cluster = &mut self.clusters[place.cluster];
        let Some(barrier) = cluster.blocks[rank].mbarriers.get_mut(&at) else {
            return fault(Kind::Misuse, format!("there is no initialised barrier at {at:#x}"));
        };
        let phase = barrier.phase;
        let lanes = i64::from(mask.count_ones());
        barrier.bytes += bytes * lanes;
        barrier.pending -= count * lanes;
        if barrier.pending < 0 || barrier.bytes > MOST {
            let why = format!("arrivals left {}, bytes awaited {}", barrier.pending, barrier.bytes);
            return fault(Kind::Misuse, format!("the barrier at {at:#x} overflows: {why}"));
        }
        cluster.clocks.release(place.index, mask, &mut barrier.stamp);
        barrier.settle();
        Ok(phase)
    }

    /// Whether the phase is over.
    fn poll(&mut self, place: &Place, mask: u32, (rank, at): (usize, u64), (wanted, parity): (u64, bool)) -> Result<bool> {
        self.touch(place, mask, rank, (at, 8), Manner::of(What::Atomic))?;
        let barrier = self.barrier_at(place.cluster, rank, at)?;
        let over = if parity { barrier.phase & 1 != wanted & 1 } else { barrier.phase != wanted };
        if over {
            let stamp = barrier.last.clone();
            self.clusters[place.cluster].clocks.acquire(place.index, mask, &stamp);
        }
        Ok(over)
    }
}
