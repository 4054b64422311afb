//! A device that runs nothing and charges predicted times to a virtual clock: planning, pooling and batching are tested on it,
//! and GPUs that are not there are planned for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::api::{Bindings, CommandList, Device, Prepared, Recorded, Region, Ticket, Timing};
use super::check::check;
use crate::base::{Tensor, lock};
use crate::error::Result;
use crate::graph::Problem;
use crate::hardware::DeviceInfo;
use crate::kernel::KernelDef;
use crate::memory::provider::{software::SoftwareStreams, virtual_device::VirtualDevice};
use crate::memory::{self, Arena, Block, Pool, StreamId};

/// More than any plan asks for.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// The null device. It plans with another device's description, so that it chooses that device's kernels; of a CUDA device it also
/// prepares the constants, and makes and checks every launch.
pub struct NullDevice {
    info: DeviceInfo,
    recorder: Option<Box<dyn Device>>,
    pool: Pool,
    arena: Arena,
    /// What was reserved, by its address.
    regions: Mutex<HashMap<u64, Block>>,
    clock_us: Mutex<f64>,
}

impl NullDevice {
    /// A null device that looks like `info`; `info.memory_bytes` (0 for no limit) bounds what can be reserved.
    /// Errors when a recording device cannot be made.
    pub fn new(info: DeviceInfo) -> Result<Self> {
        let recorder = recorder(&info)?;
        let capacity_bytes = if info.memory_bytes == 0 { UNLIMITED_BYTES } else { info.memory_bytes };
        let memory = VirtualDevice::new(capacity_bytes, None, SoftwareStreams::immediate());
        let pool = Pool::new(Arc::new(memory), memory::Options::default());
        let arena = pool.arena(pool.account(), StreamId::default());
        Ok(NullDevice { info, recorder, pool, arena, regions: Mutex::default(), clock_us: Mutex::default() })
    }

    /// The virtual time in microseconds.
    pub fn clock_us(&self) -> f64 {
        *lock(&self.clock_us)
    }

    /// Bytes now reserved.
    pub fn reserved_bytes(&self) -> u64 {
        lock(&self.regions).values().map(Block::bytes).sum()
    }
}

#[cfg(feature = "gpu")]
fn recorder(info: &DeviceInfo) -> Result<Option<Box<dyn Device>>> {
    use super::gpu::{Dry, GpuDevice};
    if info.kind != crate::hardware::DeviceKind::Cuda {
        return Ok(None);
    }
    Ok(Some(Box::new(GpuDevice::new(info.clone(), Dry::default())?)))
}

#[cfg(not(feature = "gpu"))]
fn recorder(_: &DeviceInfo) -> Result<Option<Box<dyn Device>>> {
    Ok(None)
}

impl Device for NullDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn host(&self) -> Option<&DeviceInfo> {
        self.recorder.as_ref().and_then(|r| r.host())
    }

    fn pools(&self) -> Vec<&Pool> {
        vec![&self.pool]
    }

    fn reserve(&self, bytes: usize) -> Result<Region> {
        let block = self.arena.block(bytes as u64)?;
        let handle = block.address();
        lock(&self.regions).insert(handle, block);
        Ok(Region::Opaque { handle, bytes })
    }

    fn release(&self, region: Region) {
        if let Region::Opaque { handle, .. } = region {
            let block = lock(&self.regions).remove(&handle);
            drop(block);
        }
    }

    fn upload(&self, _: &mut Region, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _: &Region, _: usize, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, kernel: &'static KernelDef, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Prepared> {
        self.recorder.as_ref().map_or_else(|| Ok(Prepared::default()), |r| r.prepare(kernel, problem, constants))
    }

    fn scratch_bytes(&self, kernel: &'static KernelDef, problem: &Problem) -> Result<usize> {
        self.recorder.as_ref().map_or(Ok(0), |r| r.scratch_bytes(kernel, problem))
    }

    fn record(&self, list: CommandList) -> Result<Recorded> {
        match &self.recorder {
            Some(recorder) => recorder.record(list),
            None => check(&list).map(|()| Recorded { list, handle: 0 }),
        }
    }

    fn submit(&self, recorded: &Recorded, _: Bindings) -> Result<Ticket> {
        let mut clock_us = lock(&self.clock_us);
        let began = *clock_us;
        let timings = recorded.list.commands.iter().map(|c| {
            let start_us = *clock_us - began;
            *clock_us += c.cost_us;
            Timing { start_us, duration_us: c.cost_us }
        });
        Ok(Ticket { timings: timings.collect::<Vec<_>>() })
    }

    fn wait(&self, ticket: Ticket) -> Result<Vec<Timing>> {
        Ok(ticket.timings)
    }

    fn forget(&self, recorded: &Recorded) {
        self.recorder.iter().for_each(|r| r.forget(recorded));
    }
}
