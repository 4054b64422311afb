//! Bulk copies: boxes of tensors between global and shared memory, swizzled, and plain ones. What a load brings comes later,
//! at a moment that the seed decides; a store is done at once, but its source may not change before it was waited for.

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
    /// Bytes and where they go.
    chunks: Vec<(u64, Vec<u8>)>,
    len: usize,
    barrier: u64,
    actor: usize,
}

/// Where the swizzle puts a chunk of 16 bytes.
pub(super) fn swizzled(address: u64, swizzle_bytes: usize) -> u64 {
    let bits = swizzle_bytes as u64 / 16;
    address ^ (address >> 7 & bits.saturating_sub(1)) << 4
}

impl TensorMap {
    fn check(&self, dims: usize) -> Result<()> {
        let inner = self.extents.first().map_or(0, |n| n * self.element_bytes);
        let shaped = self.dims.len() == dims && self.extents.len() == dims && self.strides.len() + 1 == dims;
        let whole =
            inner.is_multiple_of(16) && self.address.is_multiple_of(16) && self.strides.iter().all(|s| s.is_multiple_of(16));
        let fits = self.extents.iter().all(|n| (1..=256).contains(n)) && (self.swizzle_bytes == 0 || inner <= self.swizzle_bytes);
        if shaped && whole && fits { Ok(()) } else { fault(Kind::Misuse, format!("no tensor map: {self:?}")) }
    }

    fn bytes(&self) -> usize {
        self.extents.iter().product::<usize>() * self.element_bytes
    }

    /// Of each element of the box, in the order of shared memory: its global address, or `None` outside the tensor.
    fn addresses(&self, origin: &[i64]) -> Vec<Option<u64>> {
        let count: usize = self.extents.iter().product();
        let mut found = Vec::with_capacity(count);
        for n in 0..count {
            let (mut rest, mut address) = (n, Some(self.address));
            for (d, extent) in self.extents.iter().enumerate() {
                let at = origin[d] + (rest % extent) as i64;
                rest /= extent;
                let stride = if d == 0 { self.element_bytes as u64 } else { self.strides[d - 1] };
                let inside = at >= 0 && (at as u64) < self.dims[d];
                address = address.filter(|_| inside).map(|a| a + at as u64 * stride);
            }
            found.push(address);
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
            let phase = self.barrier_at(d.cluster, d.rank, d.barrier)?.phase;
            let shared = &mut self.clusters[d.cluster].blocks[d.rank].shared;
            d.chunks.iter().try_for_each(|(at, bytes)| shared.store(*at, bytes))?;
            shared.finish(d.to, d.len, (d.actor, 1), d.actor, phase as u32 + 1)?;
            self.complete_bytes(d.cluster, d.rank, d.barrier, d.len as i64)?;
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
                    let bytes = self.global.load(from, len)?.to_vec();
                    let ranks = if multicast { Some(warp.value(&i.operands[4], lane, Ty::Bits(16))?) } else { None };
                    self.send(warp, lane, [&i.operands[0], &i.operands[3]], ranks, (bytes, 0))?;
                }
                Op::BulkForward => {
                    let len = whole(warp.value(&i.operands[2], lane, Ty::Bits(32))?)?;
                    let bytes = self.take(warp, lane, &i.operands[1], len)?.1;
                    // Its source is free once the bytes have come, which is not modelled: it is free at once.
                    let ranges = std::mem::take(&mut warp.copies(true, lane).open);
                    self.finish(&warp.place, lane, &ranges)?;
                    self.send(warp, lane, [&i.operands[0], &i.operands[3]], None, (bytes, 0))?;
                }
                Op::BulkStore => {
                    let (to, bytes) = self.bulk(warp, i, lane)?;
                    self.global.store(to, &bytes)?;
                }
                Op::BulkReduce(what, ty) => {
                    let (to, bytes) = self.bulk(warp, i, lane)?;
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
        let mut bytes = Vec::with_capacity(map.bytes());
        for address in map.addresses(&origin) {
            match address {
                Some(address) => bytes.extend_from_slice(self.global.load(address, map.element_bytes)?),
                None => bytes.extend(std::iter::repeat_n(0, map.element_bytes)),
            }
        }
        let ranks = if multicast { Some(warp.value(&i.operands[3], lane, Ty::Bits(16))?) } else { None };
        self.send(warp, lane, [&i.operands[0], &i.operands[2]], ranks, (bytes, map.swizzle_bytes))
    }

    /// Sends bytes to the blocks of the mask, or the one that the address is of.
    fn send(
        &mut self,
        warp: &Warp,
        lane: usize,
        to: [&Operand; 2],
        ranks: Option<u64>,
        (bytes, swizzle): (Vec<u8>, usize),
    ) -> Result<()> {
        let place = &warp.place;
        let alignment = if ranks.is_some() || swizzle > 0 { 128 } else { 16 };
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
        let chunk = |(n, bytes): (usize, &[u8])| (swizzled(at + n as u64 * 16, swizzle), bytes.to_vec());
        let chunks: Vec<_> = bytes.chunks(16).enumerate().map(chunk).collect();
        for rank in (0..place.blocks_of_cluster).filter(|r| mask >> r & 1 == 1) {
            let actor = self.barrier_at(place.cluster, rank, barrier)?.actor;
            let manner = Manner { proxy: true, ..Manner::of(What::Atomic) };
            self.touch(place, 1 << lane, rank, (barrier, 8), manner)?;
            let manner = Manner { what: What::Write, pending: true, proxy: true, actor: Some((actor, 0)) };
            self.touch(place, 1 << lane, rank, (at, len), manner)?;
            let delay = if self.launch.seed == 0 { 1 } else { 1 + self.random.below(300) as u64 };
            let (due, cluster) = (self.turn + delay, place.cluster);
            self.deliveries.push(Delivery { due, cluster, rank, to: at, chunks: chunks.clone(), len, barrier, actor });
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
        if map.swizzle_bytes > 0 && !at.is_multiple_of(128) {
            return fault(Kind::Misaligned, format!("a swizzled box at {at:#x}"));
        }
        for (n, address) in map.addresses(&origin).into_iter().enumerate() {
            let offset = n * map.element_bytes;
            let from = swizzled((at + offset as u64) & !15, map.swizzle_bytes) - at + offset as u64 % 16;
            if let Some(address) = address {
                self.global.store(address, &bytes[from as usize..][..map.element_bytes])?;
            }
        }
        Ok(())
    }
}

/// A size in bytes that bulk copies take.
fn whole(bytes: u64) -> Result<usize> {
    if bytes > 0 && bytes.is_multiple_of(16) { Ok(bytes as usize) } else { fault(Kind::Misaligned, format!("{bytes} bytes")) }
}
