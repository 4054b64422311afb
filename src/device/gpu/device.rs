//! NVIDIA GPUs as a device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::driver::{Driver, Resolved};
use super::kernels::find;
use super::memory::{Held, Memory, Purpose};
use super::recording::{Recording, Step};
use crate::base::{Tensor, lock};
use crate::device::api::{Bindings, CommandList, Device, Prepared, Recorded, Region, Ticket, Timing};
use crate::device::check::check;
use crate::device::cpu::CpuDevice;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::hardware::{DeviceInfo, DeviceKind};
use crate::kernel::KernelDef;
use crate::memory::{Account, Pool};

/// A device behind a driver, as one of its handles: what they share, and the memory that this one pays for.
pub struct GpuDevice<D: Driver> {
    shared: Arc<Shared<D>>,
    memory: Memory<D>,
}

struct Shared<D: Driver> {
    info: DeviceInfo,
    driver: Arc<D>,
    /// What was reserved, by its address.
    regions: Mutex<HashMap<u64, Arc<Held<D>>>>,
    /// Runs commands that have no kernel here.
    host: CpuDevice,
    functions: Mutex<HashMap<String, D::Function>>,
    /// Constants on the device, by their address on the host.
    constants: Mutex<HashMap<usize, Weak<Constant<D>>>>,
    recordings: Mutex<HashMap<u64, Arc<Recording<D>>>>,
    next: AtomicU64,
    /// Held while a list runs: copies and launches of two runs would mix otherwise.
    running: Mutex<()>,
}

/// A constant's copy on the device, as long as a recording needs it. The tensor lives on so that no other comes to lie at its address.
pub(super) struct Constant<D: Driver> {
    _tensor: Tensor,
    held: Held<D>,
}

impl<D: Driver> Constant<D> {
    pub fn address(&self) -> u64 {
        self.held.address()
    }
}

/// An error of this device.
pub(super) fn failed(why: impl Into<String>) -> Error {
    Error::Device { device: "cuda".into(), why: why.into() }
}

impl<D: Driver> GpuDevice<D> {
    /// The device that `info` describes, through `driver`. Errors when the host's thread pool cannot be started.
    pub fn new(info: DeviceInfo, driver: D) -> Result<Self> {
        let driver = Arc::new(driver);
        let memory = Memory::new(&info, driver.clone());
        let shared = Shared {
            info,
            driver,
            regions: Mutex::default(),
            host: CpuDevice::new(None)?,
            functions: Mutex::default(),
            constants: Mutex::default(),
            recordings: Mutex::default(),
            next: AtomicU64::new(1),
            running: Mutex::default(),
        };
        Ok(GpuDevice { shared: Arc::new(shared), memory })
    }

    /// Its driver.
    pub fn driver(&self) -> &D {
        &self.shared.driver
    }

    /// The loaded module of a launch.
    pub(super) fn function(&self, module: &super::launch::Module) -> Result<D::Function> {
        let key = module.key();
        if let Some(found) = lock(&self.shared.functions).get(&key) {
            return Ok(found.clone());
        }
        let loaded = self.driver().load(module)?;
        lock(&self.shared.functions).insert(key, loaded.clone());
        Ok(loaded)
    }

    /// A constant on the device, copied where no recording has it there. No lock is held meanwhile: a relief may want it.
    pub(super) fn constant(&self, tensor: &Tensor) -> Result<Arc<Constant<D>>> {
        let known = |all: &HashMap<usize, Weak<Constant<D>>>| all.get(&tensor.address()).and_then(Weak::upgrade);
        if let Some(found) = known(&lock(&self.shared.constants)) {
            return Ok(found);
        }
        let made = Arc::new(Constant { _tensor: tensor.clone(), held: self.written(tensor)? });
        let mut all = lock(&self.shared.constants);
        all.retain(|_, constant| constant.strong_count() > 0);
        let found = known(&all);
        Ok(found.unwrap_or_else(|| {
            all.insert(tensor.address(), Arc::downgrade(&made));
            made
        }))
    }

    /// A tensor's bytes on the device, to be read only.
    pub(super) fn written(&self, tensor: &Tensor) -> Result<Held<D>> {
        let held = self.memory.take(Purpose::Constant, tensor.bytes().len().max(1))?;
        self.driver().write(held.address(), tensor.bytes())?;
        Ok(held)
    }

    /// What `reserve` gave under this address.
    fn region(&self, address: u64) -> Result<Arc<Held<D>>> {
        lock(&self.shared.regions).get(&address).cloned().ok_or_else(|| failed("a region that was given back"))
    }

    fn run(&self, recording: &Recording<D>, arena: u64, bindings: &mut Bindings) -> Result<Vec<Timing>> {
        recording.upload(self.driver(), arena, bindings.inputs)?;
        let timings = match bindings.profile {
            true => self.profiled(recording, arena)?,
            false => {
                recording.replays.run(self.driver(), recording, arena, |step| self.step(step, arena)).map(|()| Vec::new())?
            }
        };
        recording.check(self.driver(), arena)?;
        recording.download(self.driver(), arena, bindings.outputs)?;
        Ok(timings)
    }

    /// Runs with an event on both sides of each command.
    fn profiled(&self, recording: &Recording<D>, arena: u64) -> Result<Vec<Timing>> {
        let start = self.driver().event()?;
        let mut marks = Vec::new();
        for steps in &recording.commands {
            let began = self.driver().event()?;
            steps.iter().try_for_each(|step| self.step(step, arena))?;
            marks.push((began, self.driver().event()?));
        }
        let timing = |(from, to): &(D::Event, D::Event)| {
            let (start_us, duration_us) = (self.driver().elapsed_us(&start, from)?, self.driver().elapsed_us(from, to)?);
            Ok(Timing { start_us, duration_us })
        };
        marks.iter().map(timing).collect()
    }

    fn step(&self, step: &Step<D::Function>, arena: u64) -> Result<()> {
        match step {
            Step::Launch { function, module, grid, args } => {
                let values: Vec<_> = args.iter().map(|a| a.resolve(arena)).collect();
                self.driver().launch(function, &Resolved { module, grid: *grid, values: &values })
            }
            Step::Host(command) => command.run(self.driver(), &self.shared.host, arena),
        }
    }
}

impl<D: Driver> Device for GpuDevice<D> {
    fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    fn is_lost(&self) -> bool {
        self.driver().is_lost()
    }

    fn pools(&self) -> Vec<&Pool> {
        self.memory.pools()
    }

    fn account(&self) -> &Arc<Account> {
        &self.memory.account
    }

    fn tenant(&self, name: &str, limit_bytes: u64) -> Arc<dyn Device> {
        Arc::new(GpuDevice { shared: self.shared.clone(), memory: self.memory.tenant(name, limit_bytes) })
    }

    fn host(&self) -> Option<&DeviceInfo> {
        Some(self.shared.host.info())
    }

    fn reserve(&self, bytes: usize) -> Result<Region> {
        let held = self.memory.take(Purpose::Run, bytes.max(1))?;
        let handle = held.address();
        lock(&self.shared.regions).insert(handle, Arc::new(held));
        Ok(Region::Opaque { handle, bytes })
    }

    fn release(&self, region: Region) {
        if let Region::Opaque { handle, .. } = region {
            lock(&self.shared.recordings).values().for_each(|recording| recording.replays.forget(handle));
            let held = lock(&self.shared.regions).remove(&handle);
            drop(held);
        }
    }

    fn upload(&self, region: &mut Region, offset: usize, bytes: &[u8]) -> Result<()> {
        self.driver().write(inside(region, offset, bytes.len())?, bytes)
    }

    fn download(&self, region: &Region, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.driver().read(inside(region, offset, bytes.len())?, bytes)
    }

    fn prepare(&self, kernel: &'static KernelDef, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Prepared> {
        if kernel.device == DeviceKind::Cpu {
            return self.shared.host.prepare(kernel, problem, constants);
        }
        Ok(match (find(kernel.name)?.pack)(problem, constants)? {
            Some((packed, dropped)) => Prepared { packed: Some(packed), dropped, paid: None },
            None => Prepared::default(),
        })
    }

    fn scratch_bytes(&self, kernel: &'static KernelDef, problem: &Problem) -> Result<usize> {
        match kernel.device {
            DeviceKind::Cpu => self.shared.host.scratch_bytes(kernel, problem),
            _ => Ok((find(kernel.name)?.scratch_bytes)(problem, &self.shared.info)),
        }
    }

    fn record(&self, list: Arc<CommandList>) -> Result<Recorded> {
        check(&list)?;
        let recording = Recording::new(self, &list)?;
        let arena_bytes = recording.arena_bytes;
        let handle = self.shared.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.recordings).insert(handle, Arc::new(recording));
        Ok(Recorded { list, arena_bytes, handle })
    }

    fn submit(&self, recorded: &Recorded, mut bindings: Bindings) -> Result<Ticket> {
        let recording = lock(&self.shared.recordings).get(&recorded.handle).cloned();
        let recording = recording.ok_or_else(|| failed("a list that was not recorded here"))?;
        let arena = inside(bindings.arena, 0, recording.arena_bytes)?;
        let held = self.region(arena)?;
        let _running = lock(&self.shared.running);
        // Nothing that the recording holds may go while launches of a run that failed still read it.
        let stop = |_: &Error| drop(self.driver().synchronize());
        let timings = self.memory.used(&held, || {
            let timings = self.run(&recording, arena, &mut bindings).inspect_err(stop)?;
            Ok((timings, recording.is_awaited()))
        })?;
        Ok(Ticket { timings })
    }

    fn wait(&self, ticket: Ticket) -> Result<Vec<Timing>> {
        Ok(ticket.timings)
    }

    fn forget(&self, recorded: &Recorded) {
        // A run holds what it runs.
        let removed = lock(&self.shared.recordings).remove(&recorded.handle);
        drop(removed);
    }
}

/// The address of `bytes` bytes at `offset` of a region of this device.
fn inside(region: &Region, offset: usize, bytes: usize) -> Result<u64> {
    match region {
        Region::Opaque { handle, bytes: size } if offset.checked_add(bytes).is_some_and(|end| end <= *size) => {
            Ok(handle + offset as u64)
        }
        Region::Opaque { .. } => Err(failed("bytes past the region's end")),
        Region::Host(_) => Err(failed("the region is another device's")),
    }
}
