//! Physical memory in handles of mixed size, and where each is mapped. A handle is never split: it is mapped whole, moved whole
//! to other addresses, kept as a spare, or given back.

use super::device::Device;
use super::window::Windows;
use crate::error::Result;

/// The largest handle, in granules: 64 MiB of 2 MiB ones.
const LARGEST_UNITS: u32 = 32;

/// A handle and its size in granules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Granule {
    pub handle: u64,
    pub units: u32,
}

/// A mapped granule.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Mapped {
    pub address: u64,
    pub granule: Granule,
}

struct Region {
    base: u64,
    bytes: u64,
    /// For each granularity of addresses the row of the handle that lies there, plus one.
    table: Vec<u32>,
}

/// All handles of a device.
pub(super) struct Granules {
    pub unit: u64,
    /// Handles are at most this part of all memory, so that what one live byte can hold back stays small.
    part: u64,
    regions: Vec<Region>,
    rows: Vec<Mapped>,
    vacant: Vec<u32>,
    spare: Vec<Granule>,
    reserved_units: u64,
    /// Addresses of handles that became spares although the device refused to unmap them.
    stranded: Option<(u64, u64)>,
    /// Bytes ever unmapped.
    pub unmapped_bytes: u64,
    pub windows: Windows,
}

impl Granules {
    pub fn new(unit: u64, part: u64) -> Self {
        let part = part.max(1);
        Granules {
            unit,
            part,
            regions: Vec::new(),
            rows: Vec::new(),
            vacant: Vec::new(),
            spare: Vec::new(),
            reserved_units: 0,
            stranded: None,
            unmapped_bytes: 0,
            windows: Windows::default(),
        }
    }

    /// Bytes of all handles, mapped or spare.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_units * self.unit
    }

    pub fn spare_units(&self) -> u64 {
        self.spare.iter().map(|g| u64::from(g.units)).sum()
    }

    /// More addresses.
    pub fn extend(&mut self, device: &Device, bytes: u64) -> Result<u64> {
        let base = device.reserve(bytes)?;
        self.regions.push(Region { base, bytes, table: Vec::new() });
        Ok(base)
    }

    /// Takes spares of at most `units` granules in all, the largest first; how many granules are still missing.
    pub fn spares(&mut self, mut units: u64, into: &mut Vec<Granule>) -> u64 {
        self.spare.sort_unstable_by_key(|g| g.units);
        for i in (0..self.spare.len()).rev() {
            if u64::from(self.spare[i].units) <= units {
                let granule = self.spare.remove(i);
                units -= u64::from(granule.units);
                into.push(granule);
            }
        }
        units
    }

    pub fn keep(&mut self, granule: Granule) {
        self.spare.push(granule);
    }

    /// Gives spares back, the smallest first, until at most `bytes` are reserved; not those that work may use behind a window. Errors when
    /// the device refuses to unmap a window.
    pub fn release_until(&mut self, device: &Device, bytes: u64) -> Result<()> {
        self.spare.sort_unstable_by_key(|g| std::cmp::Reverse(g.units));
        for i in (0..self.spare.len()).rev() {
            if self.reserved_bytes() <= bytes {
                break;
            }
            if self.windows.close_over(device, self.spare[i].handle)? {
                let granule = self.spare.remove(i);
                self.release(device, granule);
            }
        }
        Ok(())
    }

    /// New handles of `units` granules in all, as large as the rule allows. On an error none is left.
    pub fn create(&mut self, device: &Device, mut units: u64) -> Result<Vec<Granule>> {
        let mut made = Vec::new();
        while units > 0 {
            let rule = (self.reserved_units / self.part).clamp(1, LARGEST_UNITS.into()).min(units);
            let size = 1 << rule.ilog2();
            match device.create(u64::from(size) * self.unit) {
                Ok(handle) => made.push(Granule { handle, units: size }),
                Err(error) => {
                    made.into_iter().for_each(|g| self.release(device, g));
                    return Err(error);
                }
            }
            self.reserved_units += u64::from(size);
            units -= u64::from(size);
        }
        Ok(made)
    }

    /// Gives a handle that is not mapped back.
    pub fn release(&mut self, device: &Device, granule: Granule) {
        device.release(granule.handle, u64::from(granule.units) * self.unit);
        self.reserved_units -= u64::from(granule.units);
    }

    /// Gives spares back.
    pub fn trim(&mut self, device: &Device) -> Result<()> {
        let used = self.reserved_bytes() - self.spare_units() * self.unit;
        self.release_until(device, used)
    }

    /// Maps handles one behind the other. On an error nothing is mapped and all are spare.
    pub fn map(&mut self, device: &Device, address: u64, granules: Vec<Granule>) -> Result<()> {
        let granules = small_at_the_ends(granules);
        let mut at = address;
        let mut result = self.unstrand(device);
        for granule in &granules {
            let bytes = u64::from(granule.units) * self.unit;
            result = result.and_then(|()| device.map(at, bytes, granule.handle));
            if result.is_err() {
                break;
            }
            at += bytes;
        }
        if let Err(error) = result.and_then(|()| device.set_access(address, at - address)) {
            if at > address && device.unmap(address, at - address).is_err() {
                self.stranded = Some((address, at - address));
            }
            self.spare.extend(granules);
            return Err(error);
        }
        let mut address = address;
        for granule in granules {
            self.note(Mapped { address, granule });
            address += u64::from(granule.units) * self.unit;
        }
        Ok(())
    }

    fn unstrand(&mut self, device: &Device) -> Result<()> {
        if let Some((address, bytes)) = self.stranded {
            device.unmap(address, bytes)?;
            self.stranded = None;
        }
        Ok(())
    }

    fn note(&mut self, mapped: Mapped) {
        let row = self.vacant.pop().unwrap_or(self.rows.len() as u32);
        if row as usize == self.rows.len() {
            self.rows.push(mapped);
        } else {
            self.rows[row as usize] = mapped;
        }
        self.fill(mapped, row + 1);
    }

    fn fill(&mut self, mapped: Mapped, value: u32) {
        let unit = self.unit;
        let Some(region) = self.regions.iter_mut().find(|r| (r.base..r.base + r.bytes).contains(&mapped.address)) else { return };
        let first = ((mapped.address - region.base) / unit) as usize;
        let end = first + mapped.granule.units as usize;
        if region.table.len() < end {
            region.table.resize(end, 0);
        }
        region.table[first..end].fill(value);
    }

    fn at(&self, address: u64) -> Option<(u32, Mapped)> {
        let region = self.regions.iter().find(|r| (r.base..r.base + r.bytes).contains(&address))?;
        let row = region.table.get(((address - region.base) / self.unit) as usize)?.checked_sub(1)?;
        Some((row, self.rows[row as usize]))
    }

    /// The handles that lie in a range from end to end, by address.
    pub fn whole(&self, address: u64, bytes: u64) -> Vec<Mapped> {
        let (mut at, end) = (address.next_multiple_of(self.unit), address + bytes);
        let mut found = Vec::new();
        while at + self.unit <= end {
            let Some((_, mapped)) = self.at(at) else { break };
            let next = mapped.address + u64::from(mapped.granule.units) * self.unit;
            if mapped.address >= at && next <= end {
                found.push(mapped);
            }
            at = next;
        }
        found
    }

    /// The handles that lie in a range at least in part, by address.
    pub fn within(&self, address: u64, bytes: u64) -> Vec<Mapped> {
        let (mut at, end) = (address, address + bytes);
        let mut found = Vec::new();
        while at < end {
            let Some((_, mapped)) = self.at(at) else { break };
            found.push(mapped);
            at = mapped.address + u64::from(mapped.granule.units) * self.unit;
        }
        found
    }

    /// Takes whole handles, one behind the other, out of the address space; they are spare then. No work uses them.
    pub fn unmap(&mut self, device: &Device, address: u64, bytes: u64) -> Result<()> {
        device.unmap(address, bytes)?;
        self.unmapped_bytes += bytes;
        for mapped in self.whole(address, bytes) {
            if let Some((row, _)) = self.at(mapped.address) {
                self.vacant.push(row);
            }
            self.fill(mapped, 0);
            self.spare.push(mapped.granule);
        }
        Ok(())
    }

    /// All that is mapped, by region and address.
    pub fn mapped(&self) -> Vec<Mapped> {
        let rows = self.regions.iter().flat_map(|r| {
            let starts = |&(i, &row): &(usize, &u32)| row > 0 && (i == 0 || r.table[i - 1] != row);
            r.table.iter().enumerate().filter(starts).map(|(_, &row)| row)
        });
        rows.map(|row| self.rows[row as usize - 1]).collect()
    }

    /// Gives everything back; nothing uses it any more.
    pub fn close(&mut self, device: &Device) {
        // Nobody is left to tell: a driver that refuses keeps the memory until its context ends.
        let _ = self.unstrand(device);
        self.windows.close_all(device);
        for mapped in self.mapped() {
            let _ = self.unmap(device, mapped.address, u64::from(mapped.granule.units) * self.unit);
        }
        // No window is left that could refuse.
        let _ = self.trim(device);
        for region in self.regions.drain(..) {
            device.unreserve(region.base, region.bytes);
        }
    }
}

/// Orders handles so that those at the ends, which neighbours will share, are the smallest.
fn small_at_the_ends(mut granules: Vec<Granule>) -> Vec<Granule> {
    granules.sort_unstable_by_key(|g| g.units);
    let (front, back): (Vec<_>, Vec<_>) = granules.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
    front.into_iter().chain(back.into_iter().rev()).map(|(_, g)| g).collect()
}
