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
use crate::memory::{self, Account, Arena, Block, Pool, StreamId};

/// More than any plan asks for.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// The null device. It plans with another device's description, so that it chooses that device's kernels; of a CUDA device it also
/// prepares the constants, makes and checks every launch, and takes all the memory that these need.
pub struct NullDevice {
    info: DeviceInfo,
    memory: Memory,
    clock_us: Arc<Mutex<f64>>,
}

enum Memory {
    /// A device over a driver that does nothing.
    Recorder(Arc<dyn Device>),
    Counted(Counted),
}

/// Memory for arenas, which is only counted.
struct Counted {
    pool: Pool,
    account: Arc<Account>,
    runs: Arena,
    /// What was reserved, by its address.
    regions: Arc<Mutex<HashMap<u64, Block>>>,
}

impl Counted {
    fn new(capacity_bytes: u64) -> Self {
        let memory = VirtualDevice::new(capacity_bytes, None, SoftwareStreams::immediate());
        let pool = Pool::new(Arc::new(memory), memory::Options::default());
        let (account, runs) = (pool.account().clone(), pool.arena(pool.account(), StreamId::default()));
        Counted { pool, account, runs, regions: Arc::default() }
    }

    fn tenant(&self, name: &str, limit_bytes: u64) -> Self {
        let account = self.account.child(name, limit_bytes);
        let runs = self.pool.arena(&account.child("runs", u64::MAX), StreamId::default());
        Counted { pool: self.pool.clone(), account, runs, regions: self.regions.clone() }
    }
}

impl NullDevice {
    /// A null device that looks like `info`; `info.memory_bytes` (0 for no limit) bounds what can be reserved.
    /// Errors when a recording device cannot be made.
    pub fn new(info: DeviceInfo) -> Result<Self> {
        let capacity_bytes = if info.memory_bytes == 0 { UNLIMITED_BYTES } else { info.memory_bytes };
        let memory = recorder(&info)?.map_or_else(|| Memory::Counted(Counted::new(capacity_bytes)), Memory::Recorder);
        Ok(NullDevice { info, memory, clock_us: Arc::default() })
    }

    /// The virtual time in microseconds.
    pub fn clock_us(&self) -> f64 {
        *lock(&self.clock_us)
    }

    /// Bytes now reserved; of a CUDA device with its constants and tables.
    pub fn reserved_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Recorder(device) => device.account().used_bytes(),
            Memory::Counted(counted) => lock(&counted.regions).values().map(Block::bytes).sum(),
        }
    }

    fn recorder(&self) -> Option<&Arc<dyn Device>> {
        match &self.memory {
            Memory::Recorder(device) => Some(device),
            Memory::Counted(_) => None,
        }
    }
}

#[cfg(feature = "gpu")]
fn recorder(info: &DeviceInfo) -> Result<Option<Arc<dyn Device>>> {
    use super::gpu::{Dry, GpuDevice};
    if info.kind != crate::hardware::DeviceKind::Cuda {
        return Ok(None);
    }
    Ok(Some(Arc::new(GpuDevice::new(info.clone(), Dry::default())?)))
}

#[cfg(not(feature = "gpu"))]
fn recorder(_: &DeviceInfo) -> Result<Option<Arc<dyn Device>>> {
    Ok(None)
}

impl Device for NullDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn host(&self) -> Option<&DeviceInfo> {
        self.recorder().and_then(|r| r.host())
    }

    fn pools(&self) -> Vec<&Pool> {
        match &self.memory {
            Memory::Recorder(device) => device.pools(),
            Memory::Counted(counted) => vec![&counted.pool],
        }
    }

    fn account(&self) -> &Arc<Account> {
        match &self.memory {
            Memory::Recorder(device) => device.account(),
            Memory::Counted(counted) => &counted.account,
        }
    }

    fn tenant(&self, name: &str, limit_bytes: u64) -> Arc<dyn Device> {
        let memory = match &self.memory {
            Memory::Recorder(device) => Memory::Recorder(device.tenant(name, limit_bytes)),
            Memory::Counted(counted) => Memory::Counted(counted.tenant(name, limit_bytes)),
        };
        Arc::new(NullDevice { info: self.info.clone(), memory, clock_us: self.clock_us.clone() })
    }

    fn reserve(&self, bytes: usize) -> Result<Region> {
        match &self.memory {
            Memory::Recorder(device) => device.reserve(bytes),
            Memory::Counted(counted) => {
                let block = counted.runs.block(bytes as u64)?;
                let handle = block.address();
                lock(&counted.regions).insert(handle, block);
                Ok(Region::Opaque { handle, bytes })
            }
        }
    }

    fn release(&self, region: Region) {
        match (&self.memory, region) {
            (Memory::Recorder(device), region) => device.release(region),
            (Memory::Counted(counted), Region::Opaque { handle, .. }) => {
                let block = lock(&counted.regions).remove(&handle);
                drop(block);
            }
            (Memory::Counted(_), Region::Host(_)) => {}
        }
    }

    fn upload(&self, _: &mut Region, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _: &Region, _: usize, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, kernel: &'static KernelDef, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Prepared> {
        self.recorder().map_or_else(|| Ok(Prepared::default()), |r| r.prepare(kernel, problem, constants))
    }

    fn scratch_bytes(&self, kernel: &'static KernelDef, problem: &Problem) -> Result<usize> {
        self.recorder().map_or(Ok(0), |r| r.scratch_bytes(kernel, problem))
    }

    fn record(&self, list: Arc<CommandList>) -> Result<Recorded> {
        match self.recorder() {
            Some(recorder) => recorder.record(list),
            None => check(&list).map(|()| Recorded { arena_bytes: list.arena_bytes, list, handle: 0 }),
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
        self.recorder().into_iter().for_each(|r| r.forget(recorded));
    }
}
