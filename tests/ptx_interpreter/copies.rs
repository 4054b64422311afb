//! `cp.async`: copies of up to 16 bytes by each thread, in groups. The bytes are copied at once, but nothing may use them
//! before the thread has waited for their group.

use super::access::{Manner, Spot, aligned};
use super::decode::Decoded;
use super::entry::Instruction;
use super::machine::Run;
use super::modifiers::Modifiers;
use super::number::Ty;
use super::op::{Atomic, Op, Space};
use super::operand::constant;
use super::shadow::What;
use super::warp::{Place, Warp, lanes};
use super::{Kind, Result, fault};

/// The instructions that begin with `cp`.
pub fn decode(m: &mut Modifiers) -> Decoded {
    if m.take("reduce") {
        return decode_reduce(m);
    }
    m.must("async")?;
    let bulk = m.take("bulk");
    if m.take("commit_group") {
        return Ok((if bulk { Op::BulkCommit } else { Op::CopyCommit }, 0..=0));
    }
    if m.take("wait_group") {
        return Ok((if bulk { Op::BulkWait { read: m.take("read") } } else { Op::CopyWait { all: false } }, 1..=1));
    }
    if !bulk && m.take("wait_all") {
        return Ok((Op::CopyWait { all: true }, 0..=0));
    }
    if !bulk && m.take("mbarrier") {
        m.must("arrive")?;
        let counted = m.take("noinc");
        m.skip(&["shared", "shared::cta"]);
        m.must("b64")?;
        return Ok((Op::CopyArrive { counted }, 1..=1));
    }
    let hint = usize::from(m.take("L2::cache_hint"));
    if !bulk {
        let through = m.one(&[("ca", false), ("cg", true)])?;
        m.skip(&["L2::64B", "L2::128B", "L2::256B", "shared::cta"]);
        m.skip(&["shared"]);
        m.must("global")?;
        return Ok((Op::CopyAsync { through }, 3..=4 + hint));
    }
    bulk_copy(m, hint)
}

fn bulk_copy(m: &mut Modifiers, hint: usize) -> Decoded {
    let dims = if m.take("tensor") { Some(m.one(&[("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)])?) } else { None };
    if m.take("prefetch") {
        m.must("L2")?;
        m.skip(&["tile", "global"]);
        let n = if dims.is_some() { 1 } else { 2 } + hint;
        return Ok((Op::Nothing, n..=n));
    }
    m.skip(&["tile"]);
    if m.take("mbarrier::complete_tx::bytes") {
        m.must("shared::cluster")?;
        let forward = dims.is_none() && m.take("shared::cta");
        if !forward {
            m.must("global")?;
        }
        let multicast = !forward && m.take("multicast::cluster");
        let more = hint + usize::from(multicast);
        return Ok(match dims {
            Some(dims) => (Op::TensorLoad { dims, multicast }, 3 + more..=3 + more),
            None if forward => (Op::BulkForward, 4..=4),
            None => (Op::BulkLoad { multicast }, 4 + more..=4 + more),
        });
    }
    m.must("global")?;
    m.must("shared::cta")?;
    m.must("bulk_group")?;
    Ok(match dims {
        Some(dims) => (Op::TensorStore { dims }, 2 + hint..=2 + hint),
        None => (Op::BulkStore, 3 + hint..=3 + hint),
    })
}

/// `cp.reduce.async.bulk.global.shared::cta.bulk_group`
fn decode_reduce(m: &mut Modifiers) -> Decoded {
    use Atomic::*;
    for word in ["async", "bulk", "global", "shared::cta", "bulk_group"] {
        m.must(word)?;
    }
    let hint = usize::from(m.take("L2::cache_hint"));
    let names = [
        ("add", Add),
        ("min", Min),
        ("max", Max),
        ("and", And),
        ("or", Or),
        ("xor", Xor),
        ("inc", Increment),
        ("dec", Decrement),
    ];
    let what = m.one(&names)?;
    m.skip(&["noftz"]);
    Ok((Op::BulkReduce(what, m.ty()?), 3 + hint..=3 + hint))
}

impl Run<'_> {
    pub(super) fn copy(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<()> {
        self.polls = 0;
        for lane in lanes(active) {
            match i.op {
                Op::CopyCommit => warp.copies(false, lane).commit(),
                Op::CopyWait { all } => {
                    let left = if all { 0 } else { constant(&i.operands[0])? as usize };
                    let copies = warp.copies(false, lane);
                    if all {
                        copies.commit();
                    }
                    let ranges = copies.wait(left);
                    self.finish(&warp.place, lane, &ranges)?;
                }
                Op::CopyArrive { counted } => self.copy_arrive(warp, i, lane, counted)?,
                _ => self.issue(warp, i, lane)?,
            }
        }
        Ok(())
    }

    /// The lane's copies are done once the barrier's phase is, and arrive there.
    fn copy_arrive(&mut self, warp: &mut Warp, i: &Instruction, lane: usize, counted: bool) -> Result<()> {
        let Spot::Shared(rank, at) = aligned(warp, &i.operands[0], lane, Space::Shared, 8)? else {
            return fault(Kind::Misuse, "a barrier lies in shared memory");
        };
        let place = warp.place;
        self.touch(&place, 1 << lane, rank, (at, 8), Manner::of(What::Atomic))?;
        let copies = warp.copies(false, lane);
        let mut ranges = std::mem::take(&mut copies.open);
        copies.groups.iter_mut().for_each(|g| ranges.append(g));
        let barrier = self.barrier_at(place.cluster, rank, at)?;
        let (actor, moment) = (barrier.actor, barrier.phase as u32 + 1);
        if counted {
            barrier.arrive_once(at)?;
        }
        let shared = &mut self.clusters[place.cluster].blocks[place.block].shared;
        ranges.iter().try_for_each(|(to, len)| shared.finish(*to, *len, (place.index, 1 << lane), actor, moment))
    }

    /// The thread's pending accesses there are done.
    pub(super) fn finish(&mut self, place: &Place, lane: usize, ranges: &[(u64, usize)]) -> Result<()> {
        let cluster = &mut self.clusters[place.cluster];
        let (warp, now) = (place.index, cluster.clocks.now(place.index));
        let shared = &mut cluster.blocks[place.block].shared;
        ranges.iter().try_for_each(|(at, len)| shared.finish(*at, *len, (warp, 1 << lane), warp, now))
    }

    fn issue(&mut self, warp: &mut Warp, i: &Instruction, lane: usize) -> Result<()> {
        let place = warp.place;
        let size = constant(&i.operands[2])? as usize;
        if ![4, 8, 16].contains(&size) {
            return fault(Kind::Misuse, format!("an asynchronous copy of {size} bytes"));
        }
        let given = match i.operands.get(3) {
            Some(operand) => warp.value(operand, lane, Ty::Bits(32))? as usize,
            None => size,
        };
        if size < 16 && i.op == (Op::CopyAsync { through: true }) {
            return fault(Kind::Misuse, "cp.async.cg copies 16 bytes");
        }
        if given > size {
            return fault(Kind::Misuse, format!("{given} bytes are copied to {size}"));
        }
        let Spot::Shared(rank, to) = aligned(warp, &i.operands[0], lane, Space::Shared, size)? else {
            return fault(Kind::Misuse, "the copy goes to shared memory");
        };
        let from = aligned(warp, &i.operands[1], lane, Space::Global, size)?;
        let mut bytes = [0; 16];
        if let (Spot::Global(at), true) = (from, given > 0) {
            self.note_range(&place, lane, at, given, What::Read)?;
        }
        if given > 0 {
            bytes[..given].copy_from_slice(self.load(&place, 1 << lane, from, given)?);
        }
        let manner = Manner { pending: true, ..Manner::of(What::Write) };
        self.touch(&place, 1 << lane, rank, (to, size), manner)?;
        self.clusters[place.cluster].blocks[rank].shared.store(to, &bytes[..size])?;
        warp.copies(false, lane).open.push((to, size));
        Ok(())
    }
}
