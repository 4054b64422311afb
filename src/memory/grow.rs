//! Memory behind more addresses: where a request needs the fewest new granules, and from where they come.

use super::device::Device;
use super::granule::{Granule, Granules, Mapped};
use super::heap::{BlockId, Domain, Heap, NONE, State};
use crate::error::Result;

/// Addresses are reserved in pieces of this many times what is needed or, if that is more, of the device's memory.
const ADDRESSES: u64 = 4;

/// A part of a hole to be mapped, with the free neighbours that it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extension {
    address: u64,
    pub units: u64,
    neighbours: [BlockId; 2],
}

/// The free neighbour of a hole that `stream`'s domain or anyone may use, and its bytes.
fn neighbour(heap: &Heap, id: BlockId, own: Domain) -> (BlockId, u64) {
    match id {
        NONE => (NONE, 0),
        id => match heap.block(id).state {
            State::Free(domain) if domain == own || domain == Domain::READY => (id, heap.block(id).bytes),
            _ => (NONE, 0),
        },
    }
}

/// What an extension costs, in the order of `cheapest`.
type Cost = (u64, u64, bool, u64, u64);

/// The cheapest way to a free range of `bytes` in domain `own`: fewest granules that are `short`, then fewest granules, then next
/// to free memory so that what is left is in one piece, then the lowest addresses, then least left over.
pub(super) fn cheapest(
    heap: &Heap,
    unit: u64,
    own: Domain,
    bytes: u64,
    short: impl Fn(u64, [BlockId; 2]) -> u64,
) -> Option<Extension> {
    let mut best: Option<(Cost, Extension)> = None;
    for hole in heap.holes() {
        let block = heap.block(hole);
        let (left, left_bytes) = neighbour(heap, block.prev, own);
        let (right, right_bytes) = neighbour(heap, block.next, own);
        let units = |have: u64| (bytes - have.min(bytes)).div_ceil(unit).max(1);
        let all = block.bytes / unit;
        let ways = [
            (units(left_bytes), false, [left, NONE], left_bytes),
            (units(right_bytes), true, [NONE, right], right_bytes),
            (all, false, [left, right], left_bytes + right_bytes),
        ];
        for (units, at_end, neighbours, have) in ways {
            if units > all || have + units * unit < bytes {
                continue;
            }
            let cost = (short(units, neighbours), units, have == 0, block.address, have + units * unit - bytes);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                let address = if at_end { block.end() - units * unit } else { block.address };
                best = Some((cost, Extension { address, units, neighbours }));
            }
        }
    }
    best.map(|b| b.1)
}

/// How many granules of an extension would have to be created though idle ones elsewhere may be moved (`steal`); else 0.
pub(super) fn short(heap: &Heap, granules: &Granules, steal: bool) -> impl Fn(u64, [BlockId; 2]) -> u64 {
    let blocks = if steal { idle(heap, granules, Domain::READY) } else { Vec::new() };
    let units = |(id, whole): (BlockId, Vec<Mapped>)| (id, whole.iter().map(|m| u64::from(m.granule.units)).sum());
    let (idle, spare): (Vec<(BlockId, u64)>, u64) = (blocks.into_iter().map(units).collect(), granules.spare_units());
    move |wanted, except| {
        let movable: u64 = idle.iter().filter(|(id, _)| !except.contains(id)).map(|b| b.1).sum();
        if steal { wanted.saturating_sub(movable + spare) } else { 0 }
    }
}

/// More addresses when no hole is large enough; fewer of them where the device refuses so many.
pub(super) fn reserve(heap: &mut Heap, granules: &mut Granules, device: &Device, bytes: u64) -> Result<()> {
    let unit = granules.unit;
    let least = bytes.next_multiple_of(unit);
    let mut size = bytes.max(device.provider.capacity_bytes()).saturating_mul(ADDRESSES) / unit * unit;
    let base = loop {
        size = size.max(least);
        match granules.extend(device, size) {
            Err(_) if size > least => size = size / 2 / unit * unit,
            answer => break answer?,
        }
    };
    heap.add(base, size, State::Hole);
    Ok(())
}

/// Maps `supply` into the extension: a free block then, of domain `own` or ready, with its neighbours.
pub(super) fn extend(
    heap: &mut Heap,
    granules: &mut Granules,
    device: &Device,
    extension: Extension,
    supply: Vec<Granule>,
    own: Domain,
) -> Result<()> {
    let bytes = extension.units * granules.unit;
    granules.map(device, extension.address, supply)?;
    let pending = extension.neighbours.iter().any(|&n| n != NONE && heap.block(n).state == State::Free(own));
    let domain = if pending { own } else { Domain::READY };
    for id in extension.neighbours.into_iter().filter(|&n| n != NONE) {
        if heap.block(id).state != State::Free(domain) {
            heap.promote(id, domain, 0);
        }
    }
    // Unmapping elsewhere may have joined the hole with another one.
    let hole = heap.hole_at(extension.address).expect("invariant: nothing fills holes but this");
    let part = heap.carve(hole, extension.address - heap.block(hole).address, bytes);
    heap.release(part, State::Free(domain), 0);
    Ok(())
}

/// Whole handles in free blocks of a domain, the smallest blocks first, so that the largest stay whole. Those of ready ones may be moved.
pub(super) fn idle(heap: &Heap, granules: &Granules, domain: Domain) -> Vec<(BlockId, Vec<Mapped>)> {
    let blocks = heap.fitting(domain, granules.unit);
    let whole = |id| (id, granules.whole(heap.block(id).address, heap.block(id).bytes));
    blocks.map(whole).filter(|(_, whole)| !whole.is_empty()).collect()
}

/// Unmaps idle handles of `units` granules in all, or as close to it as whole handles come from below, and then the smallest larger
/// one. What was unmapped is spare; its addresses are a hole.
pub(super) fn unmap_idle(
    heap: &mut Heap,
    granules: &mut Granules,
    device: &Device,
    mut units: u64,
    except: [BlockId; 2],
) -> Result<()> {
    let mut oversized: Option<Mapped> = None;
    for (id, whole) in idle(heap, granules, Domain::READY).into_iter().filter(|b| !except.contains(&b.0)) {
        let mut run: Option<(u64, u64)> = None;
        for mapped in whole.into_iter().rev() {
            let size = u64::from(mapped.granule.units);
            if size > units {
                let smaller = units > 0 && oversized.is_none_or(|o| mapped.granule.units < o.granule.units);
                oversized = if smaller { Some(mapped) } else { oversized };
                continue;
            }
            units -= size;
            let bytes = size * granules.unit;
            run = match run {
                Some((address, length)) if mapped.address + bytes == address => Some((mapped.address, length + bytes)),
                done => {
                    unmap(heap, granules, device, id, done)?;
                    Some((mapped.address, bytes))
                }
            };
        }
        unmap(heap, granules, device, id, run)?;
        if units == 0 {
            return Ok(());
        }
    }
    let Some(mapped) = oversized else { return Ok(()) };
    let within = |id: &BlockId| (heap.block(*id).address..heap.block(*id).end()).contains(&mapped.address);
    let found = heap.free(Domain::READY).find(within);
    let range = (mapped.address, u64::from(mapped.granule.units) * granules.unit);
    found.map_or(Ok(()), |id| unmap(heap, granules, device, id, Some(range)))
}

/// Unmaps whole handles that lie one behind the other in a ready block. What is before them keeps the block's row.
fn unmap(heap: &mut Heap, granules: &mut Granules, device: &Device, id: BlockId, range: Option<(u64, u64)>) -> Result<()> {
    let Some((address, bytes)) = range else { return Ok(()) };
    granules.unmap(device, address, bytes)?;
    let part = heap.carve(id, address - heap.block(id).address, bytes);
    heap.release(part, State::Hole, 0);
    Ok(())
}

/// Handles of exactly `units` granules: spares, then what is idle if `steal`, then new ones as long as `limit` bytes are not
/// exceeded in all. `None` when that is not enough: nothing is lost, what was unmapped is spare.
pub(super) fn supply(
    heap: &mut Heap,
    granules: &mut Granules,
    device: &Device,
    extension: Extension,
    steal: bool,
    limit: u64,
) -> Option<Vec<Granule>> {
    let mut got = Vec::new();
    let mut missing = granules.spares(extension.units, &mut got);
    let creatable = |granules: &Granules| limit.saturating_sub(granules.reserved_bytes()) / granules.unit;
    if missing > 0 && steal {
        let idle = idle(heap, granules, Domain::READY).into_iter().filter(|b| !extension.neighbours.contains(&b.0));
        let idle: u64 = idle.flat_map(|b| b.1).map(|m| u64::from(m.granule.units)).sum();
        if idle + granules.spare_units() + creatable(granules) >= missing {
            // A refusal leaves what was unmapped before as spares.
            let _ = unmap_idle(heap, granules, device, missing, extension.neighbours);
            missing = granules.spares(missing, &mut got);
            let _ = granules.release_until(device, limit.saturating_sub(missing * granules.unit));
        }
    }
    if missing > 0 && missing <= creatable(granules) {
        let mut made = granules.create(device, missing);
        if made.is_err() && steal && granules.spare_units() > 0 {
            // What stays because a window is not unmapped is refused again.
            let _ = granules.trim(device);
            made = granules.create(device, missing);
        }
        if let Ok(made) = made {
            missing = 0;
            got.extend(made);
        }
    }
    if missing > 0 {
        got.into_iter().for_each(|g| granules.keep(g));
        return None;
    }
    Some(got)
}
