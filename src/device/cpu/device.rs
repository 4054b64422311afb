//! The CPU as a device: runs each command in a thread pool, on the host's memory.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::share::Awake;
use super::{Call, CpuKernel, kernels};
use crate::base::{Tensor, TensorView, TensorViewMut};
use crate::device::api::{Bindings, Command, CommandList, Device, Place, Prepared, Recorded, Region, Slot, Ticket, Timing};
use crate::device::check::check;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::hardware::{self, DeviceInfo};
use crate::kernel::KernelDef;
use crate::memory::{Account, HostPool, Pool};

/// The CPU with a thread pool of its own.
pub struct CpuDevice {
    info: DeviceInfo,
    pool: Arc<rayon::ThreadPool>,
    awake: Arc<Awake>,
    memory: HostPool,
    account: Arc<Account>,
}

/// The code behind a row of the kernel table.
pub fn find(name: &str) -> Result<&'static CpuKernel> {
    static INDEX: OnceLock<HashMap<&'static str, &'static CpuKernel>> = OnceLock::new();
    let index = INDEX.get_or_init(|| kernels().map(|k| (k.name, k)).collect());
    index.get(name).copied().ok_or_else(|| device_error(format!("kernel {name} has no code on the CPU")))
}

/// Commands that the weights of a later one may wait for in the cache.
const AHEAD: usize = 3;

fn device_error(why: impl Into<String>) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

impl CpuDevice {
    /// A CPU device whose kernels use `threads` threads; `None` takes every core.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let all = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.unwrap_or(all).max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("halfbyte-{i}")).build();
        let pool = Arc::new(pool.map_err(|e| device_error(format!("cannot start {threads} threads: {e}")))?);
        let memory = HostPool::new()?;
        let account = memory.pool().account().clone();
        Ok(CpuDevice { info: hardware::cpu::info(threads), pool, awake: Arc::default(), account, memory })
    }

    fn run_all(&self, list: &CommandList, bound: &mut Bound, profile: bool) -> Result<Vec<Timing>> {
        let start = Instant::now();
        let us = |t: Instant| t.duration_since(start).as_secs_f64() * 1e6;
        let mut timings = Vec::with_capacity(if profile { list.commands.len() } else { 0 });
        for (i, command) in list.commands.iter().enumerate() {
            let began = Instant::now();
            bound.launch(command, ahead(&list.commands[i + 1..]))?;
            if profile {
                timings.push(Timing { start_us: us(began), duration_us: began.elapsed().as_secs_f64() * 1e6 });
            }
        }
        Ok(timings)
    }
}

/// The memory of one run.
struct Bound<'a> {
    arena: *mut u8,
    inputs: &'a [TensorView<'a>],
    outputs: Vec<*mut u8>,
}

// SAFETY: the pointers stand for exclusive borrows that outlive the run; the struct is used by one thread at a time.
unsafe impl Send for Bound<'_> {}

impl Bound<'_> {
    fn launch(&mut self, command: &Command, ahead: &[u8]) -> Result<()> {
        let dropped = command.prepared.as_ref().map_or(&[][..], |p| &p.dropped);
        let over = command.in_place();
        let mut inputs = Vec::with_capacity(command.inputs.len());
        for (i, slot) in command.inputs.iter().enumerate() {
            inputs.push(slot.as_ref().filter(|_| !dropped.contains(&i) && over != Some(i)).map(|s| self.read(s)));
        }
        let mut outputs: Vec<_> = command.outputs.iter().map(|s| s.as_ref().map(|s| self.write(s))).collect();
        let (at, len) = command.scratch;
        // SAFETY: `check` saw that the scratch range lies in the arena and overlaps nothing that this command touches.
        let scratch = unsafe { std::slice::from_raw_parts_mut(self.arena.add(at), len) };
        let packed = command.prepared.as_ref().and_then(|p| p.packed.as_ref());
        let mut call = Call { problem: &command.problem, packed, ahead, inputs: &inputs, outputs: &mut outputs, scratch };
        find(command.kernel.name)?.code.run(&mut call)
    }

    fn read<'s>(&self, slot: &'s Slot) -> TensorView<'s>
    where
        Self: 's,
    {
        let len = slot.ty.shape.numel() * slot.ty.dtype.size_bytes();
        let at = match &slot.place {
            Place::Arena(at) => self.arena.wrapping_add(*at).cast_const(),
            Place::Constant(t) => t.bytes().as_ptr(),
            Place::Input(i) => self.inputs[*i].bytes.as_ptr(),
            Place::Output(i) => self.outputs[*i].cast_const(),
        };
        // SAFETY: `check` and `submit` saw that the range lies in the arena, constant, input or output, and that no
        // write of the same command overlaps it; commands run one after the other.
        let bytes = unsafe { std::slice::from_raw_parts(at, len) };
        TensorView::new(slot.ty.dtype, slot.ty.shape.clone(), bytes)
    }

    fn write<'s>(&mut self, slot: &'s Slot) -> TensorViewMut<'s>
    where
        Self: 's,
    {
        let len = slot.ty.shape.numel() * slot.ty.dtype.size_bytes();
        let at = match &slot.place {
            Place::Arena(at) => self.arena.wrapping_add(*at),
            Place::Output(i) => self.outputs[*i],
            Place::Constant(_) | Place::Input(_) => unreachable!("`check` refuses such commands"),
        };
        // SAFETY: as in `read`; `check` saw that nothing else of this command overlaps it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at, len) };
        TensorViewMut::new(slot.ty.dtype, slot.ty.shape.clone(), bytes)
    }
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pools(&self) -> Vec<&Pool> {
        vec![self.memory.pool()]
    }

    fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn tenant(&self, name: &str, limit_bytes: u64) -> Arc<dyn Device> {
        let account = self.account.child(name, limit_bytes);
        let memory = self.memory.charged_to(&account.child("runs", u64::MAX));
        let (pool, awake) = (self.pool.clone(), self.awake.clone());
        Arc::new(CpuDevice { info: self.info.clone(), pool, awake, memory, account })
    }

    fn keeps_arenas(&self) -> bool {
        false
    }

    fn reserve(&self, bytes: usize) -> Result<Region> {
        Ok(Region::Host(self.memory.take(bytes)?))
    }

    fn release(&self, region: Region) {
        drop(region);
        self.memory.maintain();
    }

    fn upload(&self, region: &mut Region, offset: usize, bytes: &[u8]) -> Result<()> {
        let Region::Host(host) = region else { return Err(device_error("the region is another device's")) };
        let into = host.get_mut(offset..).and_then(|r| r.get_mut(..bytes.len()));
        into.ok_or_else(|| device_error("upload past the region's end"))?.copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, region: &Region, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let Region::Host(host) = region else { return Err(device_error("the region is another device's")) };
        let from = host.get(offset..).and_then(|r| r.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or_else(|| device_error("download past the region's end"))?);
        Ok(())
    }

    fn prepare(&self, kernel: &'static KernelDef, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Prepared> {
        let code = find(kernel.name)?.code;
        let packed = self.pool.install(|| code.pack(problem, constants))?;
        let Some((packed, dropped)) = packed else { return Ok(Prepared::default()) };
        let bytes = packed.parts.iter().map(|part| part.bytes().len() as u64).sum();
        let paid = self.memory.pool().pay(&self.account, bytes)?;
        Ok(Prepared { packed: Some(packed), dropped, paid: Some(Arc::new(paid)) })
    }

    fn scratch_bytes(&self, kernel: &'static KernelDef, problem: &Problem) -> Result<usize> {
        Ok(find(kernel.name)?.code.scratch_bytes(problem, &self.info))
    }

    fn record(&self, list: Arc<CommandList>) -> Result<Recorded> {
        check(&list)?;
        Ok(Recorded { arena_bytes: list.arena_bytes, list, handle: 0 })
    }

    fn submit(&self, recorded: &Recorded, bindings: Bindings) -> Result<Ticket> {
        let Region::Host(arena) = bindings.arena else { return Err(device_error("the arena is another device's")) };
        if arena.len() < recorded.arena_bytes {
            return Err(device_error("the arena is smaller than the command list needs"));
        }
        io_fits(&recorded.list, bindings.inputs, bindings.outputs)?;
        let outputs = bindings.outputs.iter_mut().map(|o| o.bytes.as_mut_ptr()).collect();
        let mut bound = Bound { arena: arena.as_mut_ptr(), inputs: bindings.inputs, outputs };
        let timings = self.pool.install(|| self.awake.during(|| self.run_all(&recorded.list, &mut bound, bindings.profile)))?;
        Ok(Ticket { timings })
    }

    fn wait(&self, ticket: Ticket) -> Result<Vec<Timing>> {
        Ok(ticket.timings)
    }
}

/// What the first of some commands reads that has constants arranged for it, if it is among the next few.
fn ahead(commands: &[Command]) -> &[u8] {
    let packed = commands.iter().take(AHEAD).find_map(|c| c.prepared.as_ref()?.packed.as_ref());
    packed.and_then(|p| p.parts.first()).map_or(&[], |part| part.bytes())
}

/// Every input and output slot no larger than what is bound to it.
fn io_fits(list: &CommandList, inputs: &[TensorView], outputs: &[TensorViewMut]) -> Result<()> {
    let slots = list.commands.iter().flat_map(|c| c.inputs.iter().chain(&c.outputs).flatten());
    for slot in slots {
        let bound = match slot.place {
            Place::Input(i) => inputs.get(i).map(|v| v.bytes.len()),
            Place::Output(i) => outputs.get(i).map(|v| v.bytes.len()),
            _ => continue,
        };
        if bound.is_none_or(|have| have < slot.ty.shape.numel() * slot.ty.dtype.size_bytes()) {
            return Err(device_error("an input or output is missing or smaller than planned"));
        }
    }
    Ok(())
}
