//! A device that runs nothing and charges predicted times to a virtual clock: planning, pooling and batching are tested on it,
//! and GPUs that are not there are planned for.

use std::sync::Mutex;

use super::api::{Bindings, CommandList, Device, Prepared, Recorded, Region, Ticket, Timing};
use super::check::check;
use crate::base::{Tensor, lock};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::hardware::DeviceInfo;
use crate::kernel::KernelDef;

/// The null device. It plans with another device's description, so that it chooses that device's kernels; of a CUDA device it also
/// prepares the constants, and makes and checks every launch.
pub struct NullDevice {
    info: DeviceInfo,
    recorder: Option<Box<dyn Device>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock_us: f64,
    next_handle: u64,
    reserved_bytes: u64,
}

impl NullDevice {
    /// A null device that looks like `info`; `info.memory_bytes` (0 for no limit) bounds what can be reserved.
    /// Errors when a recording device cannot be made.
    pub fn new(info: DeviceInfo) -> Result<Self> {
        let recorder = recorder(&info)?;
        Ok(NullDevice { info, recorder, state: Mutex::default() })
    }

    /// The virtual time in microseconds.
    pub fn clock_us(&self) -> f64 {
        self.locked().clock_us
    }

    /// Bytes now reserved.
    pub fn reserved_bytes(&self) -> u64 {
        self.locked().reserved_bytes
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
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

    fn reserve(&self, bytes: usize) -> Result<Region> {
        let mut state = self.locked();
        let available = self.info.memory_bytes.saturating_sub(state.reserved_bytes);
        if self.info.memory_bytes > 0 && bytes as u64 > available {
            return Err(Error::OutOfMemory { device: "null".into(), needed_bytes: bytes as u64, available_bytes: available });
        }
        state.reserved_bytes += bytes as u64;
        state.next_handle += 1;
        Ok(Region::Opaque { handle: state.next_handle, bytes })
    }

    fn release(&self, region: Region) {
        self.locked().reserved_bytes -= region.bytes() as u64;
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
        let mut state = self.locked();
        let began = state.clock_us;
        let timings = recorded.list.commands.iter().map(|c| {
            let start_us = state.clock_us - began;
            state.clock_us += c.cost_us;
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
