//! Memory behind the heap's addresses, of either kind.

use super::device::Device;
use super::granule::Granules;
use super::grow;
use super::heap::{BlockId, Domain, Heap, NONE, State};
use super::options::Options;
use super::slab::Slabs;
use super::window::{self, Windows};
use crate::error::Result;

/// Handles mapped where they are wanted, or slabs.
pub(super) enum Backing {
    Mapped(Box<Granules>),
    Slabs(Slabs),
}

impl Backing {
    pub fn new(device: &Device, options: &Options) -> Self {
        match device.provider.mapping() {
            Some(mapping) => Backing::Mapped(Box::new(Granules::new(mapping.granularity_bytes(), options.handle_part))),
            None => Backing::Slabs(Slabs::new(options.slab_bytes)),
        }
    }

    pub fn reserved_bytes(&self) -> u64 {
        match self {
            Backing::Mapped(granules) => granules.reserved_bytes(),
            Backing::Slabs(slabs) => slabs.reserved_bytes(),
        }
    }

    /// Bytes ever taken out of the address space, most of them to be mapped elsewhere.
    pub fn unmapped_bytes(&self) -> u64 {
        match self {
            Backing::Mapped(granules) => granules.unmapped_bytes,
            Backing::Slabs(_) => 0,
        }
    }

    /// A block behind a window, as [`window::take`] has it.
    pub fn window(&mut self, heap: &mut Heap, device: &Device, own: Domain, bytes: u64, make: bool) -> Option<(BlockId, u64)> {
        let Backing::Mapped(granules) = self else { return None };
        window::take(heap, granules, device, own, bytes, make)
    }

    /// What has second addresses.
    pub fn windows(&self) -> Option<&Windows> {
        match self {
            Backing::Mapped(granules) => Some(&granules.windows),
            Backing::Slabs(_) => None,
        }
    }

    /// Gives a block another state, with all ranges that it has behind a window.
    pub fn put(&mut self, heap: &mut Heap, id: BlockId, state: State, fence: u64) {
        if let Backing::Mapped(granules) = self {
            let stream = if let State::Free(domain) = state { domain.stream() } else { None };
            let others = granules.windows.leave(id, stream.map(|s| (s, fence)));
            others.into_iter().for_each(|id| _ = heap.release(id, state, fence));
        }
        heap.release(id, state, fence);
    }

    /// Free bytes that are not in the heap: of spare handles.
    pub fn spare_bytes(&self) -> u64 {
        match self {
            Backing::Mapped(granules) => granules.spare_units() * granules.unit,
            Backing::Slabs(_) => 0,
        }
    }

    /// Makes a free block of `bytes` that is ready or in domain `own`, without reserving more than `limit` bytes in all; with
    /// `steal`, idle memory elsewhere is moved there first. Whether there is one now.
    pub fn grow(&mut self, heap: &mut Heap, device: &Device, own: Domain, bytes: u64, steal: bool, limit: u64) -> Result<bool> {
        let granules = match self {
            Backing::Slabs(slabs) => return Ok(slabs.grow(heap, device, bytes, limit)?.is_some()),
            Backing::Mapped(granules) => granules,
        };
        let mut extension = grow::cheapest(heap, granules.unit, own, bytes, grow::short(heap, granules, steal));
        if extension.is_none() {
            grow::reserve(heap, granules, device, bytes)?;
            extension = grow::cheapest(heap, granules.unit, own, bytes, grow::short(heap, granules, steal));
        }
        let Some(extension) = extension else { return Ok(false) };
        let Some(supply) = grow::supply(heap, granules, device, extension, steal, limit) else { return Ok(false) };
        grow::extend(heap, granules, device, extension, supply, own)?;
        Ok(true)
    }

    /// Gives ready memory back to the device until about `keep_bytes` of free memory are left.
    pub fn trim(&mut self, heap: &mut Heap, device: &Device, keep_bytes: u64) -> Result<()> {
        match self {
            Backing::Slabs(slabs) => slabs.trim(heap, device, keep_bytes),
            Backing::Mapped(granules) => {
                let free = heap.free_bytes() + granules.spare_units() * granules.unit;
                let excess = free.saturating_sub(keep_bytes) / granules.unit;
                let missing = excess.saturating_sub(granules.spare_units());
                let target = granules.reserved_bytes().saturating_sub(excess * granules.unit);
                grow::unmap_idle(heap, granules, device, missing, [NONE; 2])?;
                granules.release_until(device, target)?;
            }
        }
        Ok(())
    }

    /// Moves all idle handles next to each other; false where nothing can be remapped.
    pub fn gather(&mut self, heap: &mut Heap, device: &Device) -> Result<bool> {
        let Backing::Mapped(granules) = self else { return Ok(false) };
        let idle = grow::idle(heap, granules, Domain::READY);
        let units = idle.iter().flat_map(|b| &b.1).map(|m| u64::from(m.granule.units)).sum::<u64>() + granules.spare_units();
        if units == 0 || (idle.len() == 1 && granules.spare_units() == 0) {
            return Ok(true);
        }
        let (unit, reserved) = (granules.unit, granules.reserved_bytes());
        grow::unmap_idle(heap, granules, device, units, [NONE; 2])?;
        self.grow(heap, device, Domain::READY, units * unit, true, reserved).map(|_| true)
    }

    /// What one request could get without more from the device.
    pub fn largest_bytes(&self, heap: &Heap) -> u64 {
        match self {
            Backing::Slabs(_) => heap.largest_free_bytes(),
            Backing::Mapped(granules) => {
                let idle = grow::idle(heap, granules, Domain::READY);
                let units: u64 = idle.iter().flat_map(|b| &b.1).map(|m| u64::from(m.granule.units)).sum();
                heap.largest_free_bytes().max((units + granules.spare_units()) * granules.unit)
            }
        }
    }

    /// Gives everything back; nothing is in use any more.
    pub fn close(&mut self, heap: &mut Heap, device: &Device) {
        match self {
            Backing::Slabs(slabs) => slabs.trim(heap, device, 0),
            Backing::Mapped(granules) => granules.close(device),
        }
    }

    /// Whether what is reserved is what lies behind the heap's blocks and the spares.
    pub fn check(&self, heap: &Heap) -> std::result::Result<(), String> {
        let backed: u64 = heap.blocks().filter(|(_, b)| b.state != State::Hole).map(|(_, b)| b.bytes).sum();
        if backed + self.spare_bytes() != self.reserved_bytes() {
            return Err(format!("{backed} bytes in blocks, {} spare, {} reserved", self.spare_bytes(), self.reserved_bytes()));
        }
        let Backing::Mapped(granules) = self else { return Ok(()) };
        let mapped: u64 = granules.mapped().iter().map(|m| u64::from(m.granule.units) * granules.unit).sum();
        if mapped == backed { Ok(()) } else { Err(format!("{mapped} bytes mapped, {backed} in blocks")) }
    }
}
