//! TensorFlow's and ONNX Runtime's best-fit-with-coalescing allocators.
//!
//! From their documentation and descriptions: requests are rounded to 256 bytes; the smallest free chunk that fits is taken and split when it is
//! at least twice the request or would waste 128 MiB or more; memory grows in regions that are never joined. Growing starts at a first
//! region size that doubles (TensorFlow 2 MiB without an end, ONNX Runtime 1 MiB up to 1 GiB), or takes just the request (ONNX Runtime's
//! kSameAsRequested); when the device refuses, nine tenths are tried again and again, down to the request. TensorFlow then returns wholly
//! free regions and tries once more; ONNX Runtime returns memory at the end of a run only.

use std::collections::BTreeMap;

use super::device::Device;
use super::policy::{Block, FreeSpace, Policy, Usage};
use super::ranges::Ranges;

const ALIGN: u64 = 256;
const MIB: u64 = 1 << 20;
/// A chunk that would waste so much is split whatever its size.
const MAX_WASTE: u64 = 128 * MIB;
/// ONNX Runtime's regions double up to here.
const ORT_MOST: u64 = 1024 * MIB;
/// ONNX Runtime tries no smaller region when backing down.
const ORT_LEAST: u64 = 8 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// Doubling without an end; wholly free regions are returned when the device is full.
    TensorFlow,
    /// Doubling up to 1 GiB.
    OrtDoubling,
    /// Each region as large as the request.
    OrtRequested,
}

/// One of the two.
pub struct Bfc {
    device: Device,
    ranges: Ranges,
    growth: Growth,
    /// Size of the next region.
    next_region: u64,
    /// Whether the device has refused a region before (TensorFlow backs down only once).
    refused: bool,
    /// Size of each region by address.
    regions: BTreeMap<u64, u64>,
}

impl Bfc {
    /// TensorFlow's GPU allocator with `allow_growth`.
    pub fn tensorflow(capacity: u64) -> Self {
        Self::new(capacity, Growth::TensorFlow, 2 * MIB)
    }

    /// ONNX Runtime's arena with kNextPowerOfTwo, its default.
    pub fn ort_doubling(capacity: u64) -> Self {
        Self::new(capacity, Growth::OrtDoubling, MIB)
    }

    /// ONNX Runtime's arena with kSameAsRequested.
    pub fn ort_requested(capacity: u64) -> Self {
        Self::new(capacity, Growth::OrtRequested, 0)
    }

    fn new(capacity: u64, growth: Growth, next_region: u64) -> Self {
        let device = Device::new(capacity);
        Bfc { device, ranges: Ranges::default(), growth, next_region, refused: false, regions: BTreeMap::new() }
    }

    fn grow(&mut self, bytes: u64) -> Option<(u64, u64)> {
        let available = (self.device.capacity() - self.device.reserved()) / ALIGN * ALIGN;
        if bytes > available {
            return None;
        }
        let mut size = self.region_bytes(bytes).min(available);
        let mut address = self.device.malloc(size);
        let backs_down = self.growth != Growth::TensorFlow || !self.refused;
        while address.is_none() && backs_down {
            self.refused = true;
            size = ((size as f64 * 0.9) as u64).next_multiple_of(ALIGN);
            if size < bytes || (self.growth != Growth::TensorFlow && size < ORT_LEAST) {
                return None;
            }
            address = self.device.malloc(size);
        }
        let address = address?;
        self.regions.insert(address, size);
        Some(self.ranges.add(address, size))
    }

    /// The region that a request asks for, and the step to the next one.
    fn region_bytes(&mut self, bytes: u64) -> u64 {
        if self.growth == Growth::OrtRequested {
            return bytes;
        }
        let enough = bytes <= self.next_region;
        while bytes > self.next_region {
            self.next_region *= 2;
        }
        let region = self.next_region;
        if enough {
            let end = if self.growth == Growth::OrtDoubling { ORT_MOST } else { u64::MAX };
            self.next_region = (region * 2).min(end);
        }
        region
    }

    /// Returns every region that is one free chunk. Whether there was one.
    fn release_regions(&mut self) -> bool {
        let (ranges, device, before) = (&mut self.ranges, &mut self.device, self.regions.len());
        self.regions.retain(|&address, &mut bytes| {
            let whole = ranges.free_at(address) == Some(bytes);
            if whole {
                ranges.remove(address);
                device.free(bytes);
            }
            !whole
        });
        self.regions.len() < before
    }

    /// TensorFlow's last step: free regions go when what they and the rest of the device hold is enough.
    fn collect(&mut self, bytes: u64) -> Option<(u64, u64)> {
        let whole = |&(&a, &n): &(&u64, &u64)| self.ranges.free_at(a) == Some(n);
        let free: u64 = self.regions.iter().filter(whole).map(|(_, n)| *n).sum();
        let available = self.device.capacity() - self.device.reserved() + free;
        let helps = self.growth == Growth::TensorFlow && bytes <= available && self.release_regions();
        if helps { self.grow(bytes) } else { None }
    }
}

impl Policy for Bfc {
    fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let bytes = bytes.next_multiple_of(ALIGN);
        let found = self.ranges.best_fit(bytes).or_else(|| self.grow(bytes));
        let (address, size) = found.or_else(|| self.collect(bytes))?;
        let split = size >= 2 * bytes || size - bytes >= MAX_WASTE;
        self.ranges.take(address, if split { bytes } else { size });
        Some(address)
    }

    fn free(&mut self, block: Block) {
        self.ranges.give(block);
    }

    fn usage(&self) -> Usage {
        self.device.usage()
    }

    fn free_space(&self) -> FreeSpace {
        self.ranges.free_space()
    }
}
