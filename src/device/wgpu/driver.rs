//! wgpu as a [`Driver`]: dispatches gather until something waits for them, then go as one submission.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use wgpu::{
    Adapter, Buffer, BufferDescriptor, BufferUsages, CommandEncoderDescriptor, ComputePassDescriptor, Device, DeviceDescriptor,
    ExperimentalFeatures, Features, Limits, MapMode, MemoryHints, PollType, QuerySetDescriptor, QueryType, Queue, Trace,
};

use super::batch::{Dispatch, Mark, Pending, host_ns};
use super::compiled::Compiled;
use super::fault::Faults;
use super::memory::Memory;
use super::pipeline::{Compiler, Pipeline};
use crate::base::lock;
use crate::device::gpu::{Driver, Graph, Module, Resolved, Shader, complete};
use crate::error::{Error, Result};

/// Alignment of addresses, and of sizes.
const ALIGN: u64 = 256;
/// Launches, replays and marks that wait at most.
const WAITING: usize = 2048;
/// Features that kernels or reports use, where the adapter has them.
const WANTED: Features = Features::SHADER_F16
    .union(Features::SHADER_INT64)
    .union(Features::SHADER_F64)
    .union(Features::SUBGROUP)
    .union(Features::PIPELINE_CACHE)
    .union(Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
    .union(Features::TIMESTAMP_QUERY)
    .union(Features::TIMESTAMP_QUERY_INSIDE_PASSES);

/// What the compiled shaders check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Nothing: our shaders stay within their operands.
    None,
    /// Every index, and that loops end.
    Bounds,
}

impl Default for Checks {
    /// None in release builds.
    fn default() -> Self {
        if cfg!(debug_assertions) { Checks::Bounds } else { Checks::None }
    }
}

/// Gives a shader's text: as built in, or as the files have it while shaders are being written.
pub type Texts = fn(&'static Shader) -> &'static str;

/// How a device is opened.
pub struct Settings {
    /// What compiled shaders check.
    pub checks: Checks,
    /// Where shaders' texts come from.
    pub texts: Texts,
    /// The file that keeps compiled shaders between processes, where the driver gives them away.
    pub compiled: Option<PathBuf>,
}

impl Default for Settings {
    /// Texts as built in, and nothing kept.
    fn default() -> Self {
        Settings { checks: Checks::default(), texts: |shader| shader.text, compiled: None }
    }
}

/// An adapter's device.
#[derive(Clone)]
pub struct Wgpu(Arc<Inner>);

/// What a device is made of.
pub struct Inner {
    pub(super) device: Device,
    pub(super) queue: Queue,
    pub(super) limits: Limits,
    pub(super) faults: Faults,
    pub(super) memory: Memory,
    /// Bound where a pointer is null.
    pub(super) nothing: Buffer,
    compiler: Compiler,
    texts: Texts,
    pending: Mutex<Vec<Pending>>,
    staging: Mutex<Option<Buffer>>,
}

impl std::ops::Deref for Wgpu {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Wgpu {
    /// Opens an adapter with all that it has. Errors with its words.
    pub fn open(adapter: &Adapter, settings: Settings) -> Result<Wgpu> {
        let name = format!("wgpu:{}", adapter.get_info().name);
        let limits = adapter.limits();
        let asked = adapter.request_device(&DeviceDescriptor {
            label: Some("halfbyte"),
            required_features: adapter.features() & WANTED,
            required_limits: limits.clone(),
            // SAFETY: of experimental features only cooperative matrices are used, by shaders that load and store them within arrays of
            // their own whose size they state.
            experimental_features: unsafe { ExperimentalFeatures::enabled() },
            memory_hints: MemoryHints::Performance,
            trace: Trace::Off,
        });
        let (device, queue) =
            pollster::block_on(asked).map_err(|e| Error::Device { device: name.clone(), why: e.to_string() })?;
        let faults = Faults::of(&device, &name);
        let nothing = buffer(&device, ALIGN);
        let (pending, staging) = (Mutex::default(), Mutex::default());
        let Settings { checks, texts, compiled } = settings;
        let compiled = compiled.and_then(|file| Compiled::open(&device, file));
        let compiler = Compiler { device: device.clone(), faults: faults.clone(), checks, compiled };
        let memory = Memory::default();
        let inner = Inner { device, queue, limits, faults, memory, nothing, compiler, texts, pending, staging };
        inner.faults.check()?;
        Ok(Wgpu(Arc::new(inner)))
    }

    /// The device of wgpu, for what is not a [`Driver`]'s to do.
    pub fn handle(&self) -> &Device {
        &self.device
    }

    /// Sends what waits.
    fn flush(&self) -> Result<()> {
        let pending = std::mem::take(&mut *lock(&self.pending));
        if pending.is_empty() {
            return self.check();
        }
        self.send(&pending)?;
        // Shaders are kept from their first run on, even if the process is killed later; the device works meanwhile.
        self.compiler.compiled.iter().for_each(Compiled::save);
        // What was freed meanwhile is given back here.
        self.poll(PollType::Poll)
    }

    fn send(&self, pending: &[Pending]) -> Result<()> {
        let marks: Vec<&Mark> = pending.iter().filter_map(|p| if let Pending::Mark(m) = p { Some(m) } else { None }).collect();
        let queries = (!marks.is_empty()).then(|| {
            let count = marks.len() as u32;
            self.device.create_query_set(&QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count })
        });
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor { label: None });
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor { label: None, timestamp_writes: None });
            let mut next = 0;
            for one in pending {
                match (one, &queries) {
                    (Pending::Dispatches(all), _) => {
                        for d in all.iter() {
                            pass.set_pipeline(&d.pipeline.compute);
                            pass.set_bind_group(0, &d.group, &[d.arguments_at]);
                            pass.dispatch_workgroups(d.grid[0], d.grid[1], d.grid[2]);
                        }
                    }
                    (Pending::Mark(_), Some(set)) => {
                        pass.write_timestamp(set, next);
                        next += 1;
                    }
                    (Pending::Mark(_), None) => {}
                }
            }
        }
        let Some(set) = queries else {
            self.queue.submit([encoder.finish()]);
            return self.check();
        };
        let bytes = 8 * marks.len() as u64;
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let resolved =
            self.device.create_buffer(&BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
        encoder.resolve_query_set(&set, 0..marks.len() as u32, &resolved, 0);
        self.queue.submit([encoder.finish()]);
        let mut ticks = vec![0u8; bytes as usize];
        self.fetch(&resolved, 0, &mut ticks)?;
        let period = f64::from(self.queue.get_timestamp_period());
        for (mark, tick) in marks.iter().zip(ticks.chunks_exact(8)) {
            let tick = u64::from_le_bytes(tick.try_into().expect("invariant: chunks of 8 bytes"));
            mark.get_or_init(|| tick as f64 * period);
        }
        Ok(())
    }

    /// Errors with what was reported since the last call. A loss, of which only polling tells, comes before its consequences.
    pub(super) fn check(&self) -> Result<()> {
        self.faults.check().or_else(|e| {
            self.device.poll(PollType::Poll).map_err(|e| self.faults.error(e.to_string()))?;
            self.faults.check().and(Err(e))
        })
    }

    fn poll(&self, how: PollType) -> Result<()> {
        self.device.poll(how).map_err(|e| self.faults.error(e.to_string()))?;
        self.check()
    }

    /// Bytes of a buffer, which begin at a multiple of 4, after all that was submitted.
    fn fetch(&self, from: &Buffer, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let size = (bytes.len() as u64).next_multiple_of(4);
        let mut kept = lock(&self.staging);
        if kept.as_ref().is_none_or(|b| b.size() < size) {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            let size = size.next_power_of_two().max(1 << 16);
            *kept = Some(self.device.create_buffer(&BufferDescriptor {
                label: Some("read"),
                size,
                usage,
                mapped_at_creation: false,
            }));
        }
        let staging = kept.as_ref().ok_or_else(|| self.faults.error("no staging buffer"))?;
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor { label: None });
        encoder.copy_buffer_to_buffer(from, offset, staging, 0, size);
        self.queue.submit([encoder.finish()]);
        self.check()?;
        staging.slice(..size).map_async(MapMode::Read, |_| {});
        self.poll(PollType::wait_indefinitely())?;
        {
            let mapped = staging.slice(..size).get_mapped_range().map_err(|e| self.faults.error(e.to_string()))?;
            bytes.copy_from_slice(&mapped[..bytes.len()]);
        }
        staging.unmap();
        Ok(())
    }

    pub(super) fn place(&self, address: u64) -> Result<(Buffer, u64)> {
        self.memory.at(address).ok_or_else(|| self.faults.error("an address that is not the device's"))
    }

    fn wait_for(&self, one: Pending) -> Result<()> {
        let mut pending = lock(&self.pending);
        pending.push(one);
        let is_full = pending.len() >= WAITING;
        drop(pending);
        if is_full { self.flush() } else { Ok(()) }
    }

    fn tells_time(&self) -> bool {
        self.device.features().contains(Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    }
}

fn buffer(device: &Device, size: u64) -> Buffer {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    device.create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// Dispatches to be repeated.
struct Repeated {
    driver: Wgpu,
    dispatches: Arc<[Dispatch]>,
}

impl Graph for Repeated {
    fn replay(&self) -> Result<()> {
        self.driver.wait_for(Pending::Dispatches(self.dispatches.clone()))
    }
}

impl Driver for Wgpu {
    type Function = Arc<Pipeline>;
    type Event = Mark;

    fn is_lost(&self) -> bool {
        // Only polling tells.
        self.device.poll(PollType::Poll).is_err() || self.faults.is_lost()
    }

    fn largest_allocation_bytes(&self) -> u64 {
        self.limits.max_buffer_size
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        // Kernels may read and write whole words at an operand's end.
        let size = (bytes as u64).next_multiple_of(ALIGN).max(ALIGN);
        if size > self.limits.max_buffer_size {
            return Err(self.faults.out_of_memory(size));
        }
        let made = buffer(&self.device, size);
        self.check().map_err(|e| match e {
            Error::OutOfMemory { .. } => self.faults.out_of_memory(size),
            other => other,
        })?;
        Ok(self.memory.keep(made))
    }

    fn free(&self, address: u64) {
        self.memory.free(address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        let (buffer, offset) = self.place(address)?;
        let whole = bytes.len() & !3;
        self.queue.write_buffer(&buffer, offset, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(&buffer, offset + whole as u64, &last);
        }
        self.check()
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.flush()?;
        let (buffer, offset) = self.place(address)?;
        if bytes.is_empty() { Ok(()) } else { self.fetch(&buffer, offset, bytes) }
    }

    fn load(&self, module: &Module) -> Result<Arc<Pipeline>> {
        let name = module.variant.name;
        let shader = Shader::named(name).ok_or_else(|| self.faults.error(format!("{name} has no WGSL text")))?;
        let whole = complete((self.texts)(shader), shader.threads, module.finish.as_deref(), module.constants)?;
        self.compiler.pipeline(name, whole).map(Arc::new)
    }

    fn launch(&self, function: &Arc<Pipeline>, launch: &Resolved) -> Result<()> {
        let ready = self.ready(&[(function, launch)])?;
        self.wait_for(Pending::Dispatches(ready.into()))
    }

    fn capture(&self, launches: &[(&Arc<Pipeline>, Resolved)]) -> Result<Option<Box<dyn Graph>>> {
        let all: Vec<_> = launches.iter().map(|(f, l)| (*f, l)).collect();
        let dispatches = self.ready(&all)?.into();
        Ok(Some(Box::new(Repeated { driver: self.clone(), dispatches })))
    }

    fn event(&self) -> Result<Mark> {
        let mark = Mark::default();
        if self.tells_time() {
            self.wait_for(Pending::Mark(mark.clone()))?;
        } else {
            self.synchronize()?;
            mark.get_or_init(host_ns);
        }
        Ok(mark)
    }

    fn elapsed_us(&self, from: &Mark, to: &Mark) -> Result<f64> {
        self.flush()?;
        match (from.get(), to.get()) {
            (Some(from), Some(to)) => Ok((to - from) / 1e3),
            _ => Err(self.faults.error("a point in time that never came")),
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.flush()?;
        self.poll(PollType::wait_indefinitely())
    }
}
