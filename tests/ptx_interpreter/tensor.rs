//! Bulk copies: boxes of tensors between global and shared memory, swizzled, and plain ones. What a load brings comes later,
//! at a moment that the seed decides; a store is done at once, but its source may not change before it was waited for.

use std::rc::Rc;

use super::access::{Manner, Spot, aligned, spot};
use super::entry::Instruction;
use super::machine::Run;
use super::number::Ty;
use super::op::{Op, Space};
use super::operand::{Operand, constant};
use super::shadow::What;
use super::warp::{Warp, lanes};
use super::{Kind, Result, fault};

/// A tensor in global memory and the box of it that a copy moves, innermost dimension first.
#[derive(Clone, Debug)]
pub struct TensorMap {
    pub address: u64,
    pub element_bytes: usize,
    pub dims: Vec<u64>,
    /// In bytes, of every dimension but the innermost.
    pub strides: Vec<u64>,
    pub extents: Vec<usize>,
    /// 0, 32, 64 or 128: chunks of 16 bytes are exchanged within so many bytes.
    pub swizzle_bytes: usize,
}

/// Bytes on their way to a block's shared memory.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    due: u64,
    pub cluster: usize,
    rank: usize,
    to: u64,
    bytes: Rc<Vec<u8>>,
    swizzle_bytes: usize,
    barrier: u64,
    actor: usize,
}

/// Where the swizzle puts a chunk of 16 bytes.
pub(super) fn swizzled(address: u64, swizzle_bytes: usize) -> u64 {
    let bits = swizzle_bytes as u64 / 16;
    address ^ (address >> 7 & bits.saturating_sub(1)) << 4
}

impl TensorMap {
    /// What the driver asks of a map. Source: CUDA driver API, cuTensorMapEncodeTiled.
    fn check(&self, dims: usize) -> Result<()> {
        let inner = self.extents.first().map_or(0, |n| n * self.element_bytes);
        let rules = [
            (self.dims.len() == dims && self.extents.len() == dims && self.strides.len() + 1 == dims, "number of dimensions"),
            (self.address.is_multiple_of(16), "address, a multiple of 16"),
            (self.dims.iter().all(|n| (1..=1 << 32).contains(n)), "dimension, 1 to 2^32"),
            (self.strides.iter().all(|s| s.is_multiple_of(16) && *s < 1 << 40), "stride, a multiple of 16 below 2^40"),
            (self.extents.iter().all(|n| (1..=256).contains(n)), "extent of the box, 1 to 256"),
            (inner.is_multiple_of(16), "inner extent, a multiple of 16 bytes"),
            (matches!(self.swizzle_bytes, 0 | 32 | 64 | 128), "swizzle, 0, 32, 64 or 128"),
            (self.swizzle_bytes == 0 || inner <= self.swizzle_bytes, "inner extent, at most the swizzle"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => fault(Kind::Misuse, format!("no tensor map ({what}): {self:?}")),
            None => Ok(()),
        }
    }

    fn bytes(&self) -> usize {
        self.extents.iter().product::<usize>() * self.element_bytes
    }

    /// The box's rows at an origin, in the order of shared memory: where in the box those bytes of a row begin that are of the
    /// tensor, their address, and how many there are.
    fn rows(&self, origin: &[i64]) -> Vec<(usize, u64, usize)> {
        let (element, across) = (self.element_bytes, self.extents[0]);
        let first = origin[0].clamp(0, self.dims[0] as i64);
        let last = (origin[0] + across as i64).clamp(first, self.dims[0] as i64);
        let rows: usize = self.extents[1..].iter().product();
        let mut found = Vec::with_capacity(rows);
        for row in 0..rows {
            let (mut rest, mut address, mut inside) = (row, self.address + first as u64 * element as u64, last > first);
            for (d, extent) in self.extents.iter().enumerate().skip(1) {
                let at = origin[d] + (rest % extent) as i64;
                rest /= extent;
                inside &= at >= 0 && (at as u64) < self.dims[d];
                address = address.wrapping_add((at as u64).wrapping_mul(self.strides[d - 1]));
            }
            if inside {
                let skipped = (first - origin[0]) as usize;
                found.push(((row * across + skipped) * element, address, (last - first) as usize * element));
            }
        }
        found
    }
}

impl Run<'_> {
    /// Hands over what has come.
    pub(super) fn deliver(&mut self) -> Result<()> {
        let turn = self.turn;
        let all = std::mem::take(&mut self.deliveries);
        let (now, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| d.due <= turn);
        self.deliveries = later;
        for d in now {
            if self.clusters[d.cluster].blocks[d.rank].live == 0 {
                return fault(Kind::Unfinished, "a bulk copy comes to the shared memory of a block that has exited");
            }
            let phase = self.barrier_at(d.cluster, d.rank, d.barrier)?.phase;
            let shared = &mut self.clusters[d.cluster].blocks[d.rank].shared;
            for (n, chunk) in d.bytes.chunks(16).enumerate() {
                shared.store(swizzled(d.to + n as u64 * 16, d.swizzle_bytes), chunk)?;
            }
            let len = d.bytes.len();
            shared.finish(d.to, len, (d.actor, 1), d.actor, phase as u32 + 1)?;
            self.complete_bytes(d.cluster, d.rank, d.barrier, len as i64)?;
        }
        Ok(())
    }

    fn map(&mut self, warp: &Warp, operand: &Operand, lane: usize, dims: usize) -> Result<(TensorMap, Vec<i64>)> {
        let address = warp.address(operand, lane)?;
        let from = spot(Space::Generic, address, &warp.place)?;
        let number = super::access::bits(self.load(&warp.place, 1 << lane, from, 8)?);
        let Operand::Tensor { coordinates, .. } = operand else { return fault(Kind::Syntax, "no tensor") };
        let Some(map) = self.maps.get(number as usize).cloned().filter(|_| matches!(from, Spot::Param(_))) else {
            return fault(Kind::Misuse, "the address is of no tensor map");
        };
        map.check(dims)?;
        let at = |o: &Operand| Ok(Ty::Signed(32).integer(warp.value(o, lane, Ty::Signed(32))?) as i64);
        let origin = coordinates.iter().map(at).collect::<Result<Vec<_>>>()?;
        if origin.len() == dims { Ok((map, origin)) } else { fault(Kind::Syntax, format!("{dims} coordinates are wanted")) }
    }

    pub(super) fn tensor(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<()> {
        self.polls = 0;
        for lane in lanes(active) {
            match i.op {
                Op::TensorLoad { dims, multicast } => self.tensor_load(warp, i, lane, (dims, multicast))?,
                Op::TensorStore { dims } => self.tensor_store(warp, i, lane, dims)?,
                Op::BulkLoad { multicast } => {
                    let len = whole(warp.value(&i.operands[2], lane, Ty::Bits(32))?)?;
                    let Spot::Global(from) = aligned(warp, &i.operands[1], lane, Space::Global, 16)? else {
                        return fault(Kind::Misuse, "the copy comes from global memory");
                    };
                    self.note_range(&warp.place, lane, from, len, What::Read)?;
                    let bytes = self.global.load(from, len)?.to_vec();
                    let ranks = if multicast { Some(warp.value(&i.operands[4], lane, Ty::Bits(16))?) } else { None };
                    self.send(warp, lane, [&i.operands[0], &i.operands[3]], ranks, (bytes, 0, 16))?;
                }
                Op::BulkForward => {
                    let len = whole(warp.value(&i.operands[2], lane, Ty::Bits(32))?)?;
                    let bytes = self.take(warp, lane, &i.operands[1], len)?.1;
                    // Its source is free once the bytes have come, which is not modelled: it is free at once.
                    let ranges = std::mem::take(&mut warp.copies(true, lane).open);
                    self.finish(&warp.place, lane, &ranges)?;
                    self.send(warp, lane, [&i.operands[0], &i.operands[3]], None, (bytes, 0, 16))?;
                }
                Op::BulkStore => {
                    let (to, bytes) = self.bulk(warp, i, lane)?;
                    self.note_range(&warp.place, lane, to, bytes.len(), What::Write)?;
                    self.global.store(to, &bytes)?;
                }
                Op::BulkReduce(what, ty) => {
                    let (to, bytes) = self.bulk(warp, i, lane)?;
                    self.note_range(&warp.place, lane, to, bytes.len(), What::Atomic)?;
                    for (n, given) in bytes.chunks_exact(ty.bytes()).enumerate() {
                        let at = to + (n * ty.bytes()) as u64;
                        let old = super::access::bits(self.global.load(at, ty.bytes())?);
                        let new = super::access::updated(what, ty, old, super::access::bits(given), 0)?;
                        self.global.store(at, &new.to_le_bytes()[..ty.bytes()])?;
                    }
                }
                Op::BulkCommit => warp.copies(true, lane).commit(),
                _ => {
                    let left = constant(&i.operands[0])? as usize;
                    let ranges = warp.copies(true, lane).wait(left);
                    self.finish(&warp.place, lane, &ranges)?;
                }
            }
        }
        Ok(())
    }

    /// Where a plain bulk store goes, and its bytes.
    fn bulk(&mut self, warp: &mut Warp, i: &Instruction, lane: usize) -> Result<(u64, Vec<u8>)> {
        let len = whole(warp.value(&i.operands[2], lane, Ty::Bits(32))?)?;
        match aligned(warp, &i.operands[0], lane, Space::Global, 16)? {
            Spot::Global(to) => Ok((to, self.take(warp, lane, &i.operands[1], len)?.1)),
            _ => fault(Kind::Misuse, "the copy goes to global memory"),
        }
    }

    fn tensor_load(&mut self, warp: &mut Warp, i: &Instruction, lane: usize, (dims, multicast): (usize, bool)) -> Result<()> {
        let (map, origin) = self.map(warp, &i.operands[1], lane, dims)?;
        let mut bytes = vec![0; map.bytes()];
        for (to, from, len) in map.rows(&origin) {
            self.note_range(&warp.place, lane, from, len, What::Read)?;
            bytes[to..to + len].copy_from_slice(self.global.load(from, len)?);
        }
        let ranks = if multicast { Some(warp.value(&i.operands[3], lane, Ty::Bits(16))?) } else { None };
        self.send(warp, lane, [&i.operands[0], &i.operands[2]], ranks, (bytes, map.swizzle_bytes, 128))
    }

    /// Sends bytes to the blocks of the mask, or the one that the address is of.
    fn send(
        &mut self,
        warp: &Warp,
        lane: usize,
        to: [&Operand; 2],
        ranks: Option<u64>,
        (bytes, swizzle, alignment): (Vec<u8>, usize, usize),
    ) -> Result<()> {
        let place = &warp.place;
        let Spot::Shared(own, at) = aligned(warp, to[0], lane, Space::Cluster, alignment)? else {
            return fault(Kind::Misuse, "the copy goes to shared memory");
        };
        let Spot::Shared(_, barrier) = aligned(warp, to[1], lane, Space::Cluster, 8)? else {
            return fault(Kind::Misuse, "the barrier lies in shared memory");
        };
        let len = bytes.len();
        let mask = ranks.unwrap_or(1 << own);
        if mask >> place.blocks_of_cluster != 0 {
            return fault(Kind::Misuse, format!("the mask {mask:#x} names blocks that are not"));
        }
        let bytes = Rc::new(bytes);
        for rank in (0..place.blocks_of_cluster).filter(|r| mask >> r & 1 == 1) {
            let actor = self.barrier_at(place.cluster, rank, barrier)?.actor;
            let manner = Manner { proxy: true, ..Manner::of(What::Atomic) };
            self.touch(place, 1 << lane, rank, (barrier, 8), manner)?;
            let manner = Manner { what: What::Write, pending: true, proxy: true, actor: Some((actor, 0)) };
            self.touch(place, 1 << lane, rank, (at, len), manner)?;
            let delay = if self.launch.seed == 0 { 1 } else { 1 + self.random.below(300) as u64 };
            let (due, cluster) = (self.turn + delay, place.cluster);
            let (bytes, swizzle_bytes) = (bytes.clone(), swizzle);
            self.deliveries.push(Delivery { due, cluster, rank, to: at, bytes, swizzle_bytes, barrier, actor });
        }
        Ok(())
    }

    /// Bytes of this block's shared memory for a store, and where they lie.
    fn take(&mut self, warp: &mut Warp, lane: usize, from: &Operand, len: usize) -> Result<(u64, Vec<u8>)> {
        let Spot::Shared(rank, at) = aligned(warp, from, lane, Space::Shared, 16)? else {
            return fault(Kind::Misuse, "the copy comes from shared memory");
        };
        let manner = Manner { proxy: true, pending: true, ..Manner::of(What::Read) };
        self.touch(&warp.place, 1 << lane, rank, (at, len), manner)?;
        warp.copies(true, lane).open.push((at, len));
        Ok((at, self.clusters[warp.place.cluster].blocks[rank].shared.load(at, len)?.to_vec()))
    }

    fn tensor_store(&mut self, warp: &mut Warp, i: &Instruction, lane: usize, dims: usize) -> Result<()> {
        let (map, origin) = self.map(warp, &i.operands[0], lane, dims)?;
        let (at, bytes) = self.take(warp, lane, &i.operands[1], map.bytes())?;
        if !at.is_multiple_of(128) {
            return fault(Kind::Misaligned, format!("a box at {at:#x}"));
        }
        let mut plain = vec![0; bytes.len()];
        for (n, chunk) in plain.chunks_exact_mut(16).enumerate() {
            let from = (swizzled(at + n as u64 * 16, map.swizzle_bytes) - at) as usize;
            chunk.copy_from_slice(&bytes[from..from + 16]);
        }
        map.rows(&origin).into_iter().try_for_each(|(from, to, len)| {
            self.note_range(&warp.place, lane, to, len, What::Write)?;
            self.global.store(to, &plain[from..from + len])
        })
    }
}

/// A size in bytes that bulk copies take.
fn whole(bytes: u64) -> Result<usize> {
    if bytes > 0 && bytes.is_multiple_of(16) { Ok(bytes as usize) } else { fault(Kind::Misaligned, format!("{bytes} bytes")) }
}
