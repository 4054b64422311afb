//! Random use of a pool over a device with delayed streams, against naive models.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::memory::provider::host::HostMemory;
use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::virtual_device::VirtualDevice;
use halfbyte::memory::{Arena, Block, Options, Pool, Provider, Rung, StreamId};

use crate::faulty::{Fault, Faulty};
use crate::shadow::Shadow;

/// What a device of these tests shows of itself.
pub trait Device: Provider + Sized + 'static {
    /// Whether its bytes can be read and written.
    const BYTES: bool;
    /// Its streams.
    fn software(&self) -> &SoftwareStreams;
    /// The physical memory behind a range, as [`VirtualDevice::translate`] has it.
    fn translate(&self, address: u64, bytes: u64) -> Option<Vec<(u64, u64, u64)>>;
    /// Bytes of it that are taken.
    fn used_bytes(&self) -> u64;
}

impl Device for VirtualDevice {
    const BYTES: bool = false;
    fn software(&self) -> &SoftwareStreams {
        VirtualDevice::software(self)
    }
    fn translate(&self, address: u64, bytes: u64) -> Option<Vec<(u64, u64, u64)>> {
        VirtualDevice::translate(self, address, bytes)
    }
    fn used_bytes(&self) -> u64 {
        VirtualDevice::used_bytes(self).0
    }
}

impl Device for HostMemory {
    const BYTES: bool = true;
    fn software(&self) -> &SoftwareStreams {
        self.counts().software()
    }
    fn translate(&self, address: u64, bytes: u64) -> Option<Vec<(u64, u64, u64)>> {
        self.counts().translate(address, bytes)
    }
    fn used_bytes(&self) -> u64 {
        self.counts().used_bytes().0
    }
}

/// A block in use, numbered by its allocation, and whether its canary was written.
struct Owned {
    block: Block,
    number: u64,
    written: bool,
}

pub struct World<D: Device> {
    device: Arc<D>,
    pool: Pool,
    arenas: Vec<Arena>,
    shadow: Arc<Shadow>,
    owned: Vec<Owned>,
    /// Live ranges by address: end.
    ranges: BTreeMap<u64, u64>,
    random: Xorshift,
    made: u64,
    pub refused: u64,
    granularity: u64,
}

const STREAMS: u16 = 3;

fn canary(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

impl<D: Device> World<D> {
    pub fn new(device: D, granularity: u64, seed: u64, fault: Fault) -> Self {
        let device = Arc::new(device);
        let options = Options {
            keep_bytes: 2 * granularity,
            slab_bytes: granularity,
            handle_part: 8,
            wait: Duration::from_millis(20),
            ..Options::default()
        };
        let pool = Pool::new(Arc::new(Faulty::new(device.clone(), fault)), options);
        let arenas = (0..STREAMS * 2).map(|i| pool.arena(pool.account(), StreamId(i % STREAMS))).collect();
        let (shadow, owned, ranges) = Default::default();
        World { device, pool, arenas, shadow, owned, ranges, random: Xorshift::new(seed), made: 0, refused: 0, granularity }
    }

    /// Sizes from a byte to several granules; some of them again and again.
    fn size(&mut self) -> u64 {
        let g = self.granularity as usize;
        let size = match self.random.below(8) {
            0..4 => 1 + self.random.below(g / 8),
            4 | 5 => [256, 1024, g / 2, g, 3 * g][self.random.below(5)],
            6 => 1 + self.random.below(2 * g),
            _ => 1 + self.random.below(6 * g),
        };
        size as u64
    }

    fn allocate(&mut self) -> Result<(), String> {
        let (bytes, arena) = (self.size(), self.random.below(self.arenas.len()));
        let align = 256 << if self.random.below(16) == 0 { self.random.below(5) } else { 0 };
        let arena = &self.arenas[arena];
        let block = if align == 256 { arena.block(bytes) } else { arena.aligned(bytes, align) };
        let Ok(block) = block else {
            self.refused += 1;
            for _ in 0..self.owned.len().div_ceil(2) {
                self.free();
            }
            return Ok(());
        };
        let (address, end) = (block.address(), block.address() + bytes.next_multiple_of(256));
        let before = self.ranges.range(..end).next_back();
        if let Some((at, stop)) = before.filter(|(_, stop)| **stop > address) {
            return Err(format!("{address:#x}..{end:#x} overlaps {at:#x}..{stop:#x}"));
        }
        if address % align != 0 {
            return Err(format!("{address:#x} is not aligned to {align}"));
        }
        self.ranges.insert(address, end);
        self.made += 1;
        self.owned.push(Owned { block, number: self.made, written: false });
        Ok(())
    }

    fn free(&mut self) {
        if !self.owned.is_empty() {
            let gone = self.owned.swap_remove(self.random.below(self.owned.len()));
            self.ranges.remove(&gone.block.address());
        }
    }

    /// Submits work on up to three blocks to a random stream: reads their canaries, writes them anew.
    fn launch(&mut self) -> Result<(), String> {
        if self.owned.is_empty() {
            return Ok(());
        }
        let picks: Vec<usize> = (0..1 + self.random.below(3)).map(|_| self.random.below(self.owned.len())).collect();
        let away = self.random.below(6) == 0;
        let home = self.owned[picks[0]].block.stream();
        let stream = if away { StreamId(self.random.below(STREAMS.into()) as u16) } else { home };
        let mut launch = self.pool.launch(stream);
        for &i in &picks {
            let owned = &self.owned[i];
            if owned.block.stream() != stream && !away {
                continue;
            }
            let address = launch.bind(&owned.block).map_err(|e| e.to_string())?;
            let (device, shadow) = (self.device.clone(), self.shadow.clone());
            let (bytes, number, check) = (owned.block.bytes(), owned.number, owned.written);
            let work = move || {
                shadow.touch(device.translate(address, bytes), number);
                if D::BYTES && bytes >= 16 {
                    let ends = [address, address + bytes - 8];
                    let mut found = [0; 8];
                    for at in ends {
                        let read = HostMemory::read(at, &mut found);
                        if read.is_err() || (check && found != canary(number)) {
                            shadow.fault(format!("block {number}: {read:?}, its canary is {found:?}"));
                        }
                        if HostMemory::write(at, &canary(number)).is_err() {
                            shadow.fault(format!("block {number}: a write faulted"));
                        }
                    }
                }
            };
            self.device.software().submit(stream, work);
        }
        launch.submit().map_err(|e| e.to_string())?;
        // Only work of its own stream is ordered; what was written elsewhere may come later than what reads here.
        if !away {
            let streams: Vec<usize> = picks.into_iter().filter(|&i| self.owned[i].block.stream() == stream).collect();
            streams.into_iter().for_each(|i| self.owned[i].written = true);
        }
        Ok(())
    }

    /// Runs `operations` random ones; what went wrong.
    pub fn run(&mut self, operations: usize) -> Result<(), String> {
        for i in 0..operations {
            match self.random.below(32) {
                0..10 => self.allocate()?,
                10..18 => self.free(),
                18..26 => self.launch()?,
                26..31 => (0..self.random.below(6)).for_each(|_| _ = self.device.software().step()),
                _ => self.tidy()?,
            }
            if let Some(fault) = self.shadow.first_fault() {
                return Err(format!("operation {i}: {fault}"));
            }
            if i % 1024 == 0 {
                self.pool.check().map_err(|e| format!("operation {i}: {e}"))?;
            }
        }
        Ok(())
    }

    /// Requests that second addresses served without a call of the driver.
    pub fn windows(&self) -> u64 {
        self.pool.stats().rungs.iter().find(|r| r.rung == Rung::Window).map_or(0, |r| r.helped)
    }

    fn tidy(&mut self) -> Result<(), String> {
        match self.random.below(40) {
            0 => self.trim(0),
            1 => self.trim(4 * self.granularity),
            _ => Ok(()),
        }
    }

    fn trim(&self, keep_bytes: u64) -> Result<(), String> {
        // A driver that refuses every 7th call lets through one of a few tries.
        let refused = (0..64).map_while(|_| self.pool.trim(keep_bytes).err()).count();
        if refused < 64 { Ok(()) } else { Err("no trim succeeds".into()) }
    }

    /// Frees everything, lets all work happen, and gives all memory back.
    pub fn end(mut self) -> Result<(), String> {
        self.owned.clear();
        while self.device.software().step() {}
        if let Some(fault) = self.shadow.first_fault() {
            return Err(fault);
        }
        self.trim(0)?;
        self.pool.check()?;
        let stats = self.pool.stats();
        if (stats.live_bytes, stats.reserved_bytes, stats.padding_bytes) != (0, 0, 0) {
            return Err(format!("left behind: {stats:?}"));
        }
        if self.pool.account().used_bytes() != 0 || self.device.used_bytes() != 0 {
            return Err("the account or the device counts bytes that nobody holds".into());
        }
        Ok(())
    }
}
