//! `cp.async`: copies of up to 16 bytes by each thread, in groups. The bytes are copied at once, but nothing may use them
//! before the thread has waited for their group.

use super::access::{Manner, Spot, aligned};
use super::decode::Decoded;
use super::entry::Instruction;
use super::machine::Run;
use super::modifiers::Modifiers;
use super::number::Ty;
use super::op::{Op, Space};
use super::operand::constant;
use super::shadow::What;
use super::warp::{Place, Warp, lanes};
use super::{Kind, Result, fault};

/// The instructions that begin with `cp`.
pub fn decode(m: &mut Modifiers) -> Decoded {
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
    let hint = m.take("L2::cache_hint");
    if !bulk {
        m.one(&[("ca", ()), ("cg", ())])?;
        m.skip(&["L2::64B", "L2::128B", "L2::256B", "shared::cta"]);
        m.skip(&["shared"]);
        m.must("global")?;
        return Ok((Op::CopyAsync, 3..=4 + usize::from(hint)));
    }
    let dims = if m.take("tensor") { Some(m.one(&[("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)])?) } else { None };
    m.skip(&["tile", "global"]);
    let load = m.take("mbarrier::complete_tx::bytes");
    m.must(if load { "shared::cluster" } else { "shared::cta" })?;
    if !load {
        m.must("bulk_group")?;
    }
    let multicast = load && m.take("multicast::cluster");
    let more = usize::from(hint) + usize::from(multicast);
    Ok(match (dims, load) {
        (Some(dims), true) => (Op::TensorLoad { dims, multicast }, 3 + more..=3 + more),
        (Some(dims), false) => (Op::TensorStore { dims }, 2 + more..=2 + more),
        (None, true) if !multicast => (Op::BulkLoad, 4 + more..=4 + more),
        (None, false) => (Op::BulkStore, 3 + more..=3 + more),
        _ => return fault(Kind::Syntax, "a multicast is of a tensor"),
    })
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
                _ => self.issue(warp, i, lane)?,
            }
        }
        Ok(())
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
        if given > size {
            return fault(Kind::Misuse, format!("{given} bytes are copied to {size}"));
        }
        let Spot::Shared(rank, to) = aligned(warp, &i.operands[0], lane, Space::Shared, size)? else {
            return fault(Kind::Misuse, "the copy goes to shared memory");
        };
        let from = aligned(warp, &i.operands[1], lane, Space::Global, size)?;
        let mut bytes = [0; 16];
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
