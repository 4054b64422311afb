//! The driver's verbs.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{
    self, CUlaunchAttribute, CUlaunchAttributeID_enum as AttributeId, CUlaunchAttributeValue, CUlaunchConfig, CUstream,
    CUtensorMap,
};

use super::context::Context;
use super::event::Event;
use super::graph::Captured;
use super::module::Loaded;
use super::staging::Staging;
use super::tensor_map::encode;
use super::virtual_memory::{Choice, VirtualMemory};
use crate::base::lock;
use crate::device::gpu::{Driver, Graph, Module, Resolved, Value};
use crate::error::Result;
use crate::memory::provider::Mapping;

/// NVIDIA's driver on one device. Nothing of it panics without a driver, with an old one, or after the device is lost.
pub struct Nvidia {
    context: Arc<Context>,
    staging: Mutex<Staging>,
    virtual_memory: std::result::Result<VirtualMemory, String>,
}

impl Nvidia {
    /// Of device `ordinal`, by the driver's numbering, with memory as [`Choice::of_environment`] says. Errors when there is no
    /// usable driver or no such device.
    pub fn open(ordinal: usize) -> Result<Nvidia> {
        Nvidia::open_with(ordinal, Choice::of_environment()?)
    }

    /// The same, with memory taken so.
    pub fn open_with(ordinal: usize, memory: Choice) -> Result<Nvidia> {
        let context = Arc::new(Context::open(ordinal)?);
        let staging = Mutex::new(Staging::new(&context)?);
        let virtual_memory = match memory {
            Choice::Slabs => Err("not asked for".into()),
            Choice::Vmm => VirtualMemory::new(&context),
        };
        Ok(Nvidia { context, staging, virtual_memory })
    }

    /// Virtual memory management, or why memory is taken in slabs.
    pub fn virtual_memory(&self) -> std::result::Result<&VirtualMemory, &str> {
        self.virtual_memory.as_ref().map_err(String::as_str)
    }

    /// Registers and bytes of local memory that a thread of the function takes on this device.
    pub fn usage(&self, function: &<Self as Driver>::Function) -> Result<[i32; 2]> {
        function.usage()
    }

    fn launch_in(&self, stream: CUstream, function: &Loaded, launch: &Resolved) -> Result<()> {
        let faults = &self.context.faults;
        let maps = launch.values.iter().map(|v| if let Value::Map(m) = v { encode(faults, m).map(Some) } else { Ok(None) });
        let maps: Vec<Option<CUtensorMap>> = maps.collect::<Result<_>>()?;
        let address = |(value, map): (&Value, &Option<CUtensorMap>)| -> *mut c_void {
            match (value, map) {
                (_, Some(map)) => std::ptr::from_ref(map).cast_mut().cast(),
                (Value::Bytes(bytes), None) => bytes.as_ptr().cast_mut().cast(),
                (Value::Map(_), None) => std::ptr::null_mut(),
            }
        };
        let mut parameters: Vec<*mut c_void> = launch.values.iter().zip(&maps).map(address).collect();
        let mut early = CUlaunchAttribute {
            id: AttributeId::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let variant = launch.module.variant;
        let [x, y, z] = launch.grid;
        // Clusters are in the text (.reqnctapercluster).
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: variant.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: variant.shared_bytes,
            hStream: stream,
            attrs: &mut early,
            numAttrs: function.starts_early.into(),
        };
        // SAFETY: there is a value of the declared size for each parameter, and what pointers and maps name lies inside the
        // command's operands: both are checked when a launch is recorded. The driver copies the values.
        let answer = unsafe { sys::cuLaunchKernelEx(&config, function.function, parameters.as_mut_ptr(), std::ptr::null_mut()) };
        faults.check(&format!("launch of {}", variant.name), answer)
    }
}

impl Driver for Nvidia {
    type Function = Arc<Loaded>;
    type Event = Event;

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.context.enter()?;
        let mut address = 0;
        // SAFETY: the driver writes one address.
        let answer = unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) };
        self.context.taken("cuMemAlloc", answer, bytes as u64)?;
        Ok(address)
    }

    fn mapping(&self) -> Option<&dyn Mapping> {
        self.virtual_memory.as_ref().ok().map(|m| m as &dyn Mapping)
    }

    fn copy(&self, from: u64, to: u64, bytes: u64) -> Result<()> {
        self.context.enter()?;
        // SAFETY: both ranges are live blocks of the caller's, and do not overlap.
        let answer = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, self.context.stream()) };
        self.context.faults.check("cuMemcpyDtoDAsync", answer)
    }

    fn free(&self, address: u64) {
        self.context.give_back(|| {
            // SAFETY: given by `allocate`; the driver waits for work that uses it.
            unsafe { sys::cuMemFree_v2(address) };
        });
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.context.enter()?;
        lock(&self.staging).write(address, bytes)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.context.enter()?;
        lock(&self.staging).read(address, bytes)
    }

    fn load(&self, module: &Module) -> Result<Arc<Loaded>> {
        Ok(Arc::new(Loaded::new(&self.context, module)?))
    }

    fn launch(&self, function: &Arc<Loaded>, launch: &Resolved) -> Result<()> {
        self.context.enter()?;
        self.launch_in(self.context.stream(), function, launch)
    }

    fn event(&self) -> Result<Event> {
        let event = Event::new(&self.context)?;
        event.record()?;
        Ok(event)
    }

    fn elapsed_us(&self, from: &Event, to: &Event) -> Result<f64> {
        from.until_us(to)
    }

    fn synchronize(&self) -> Result<()> {
        self.context.synchronize()
    }

    fn capture(&self, launches: &[(&Arc<Loaded>, Resolved)]) -> Result<Option<Box<dyn Graph>>> {
        let all = |stream| launches.iter().try_for_each(|(function, launch)| self.launch_in(stream, function, launch));
        Ok(Some(Box::new(Captured::new(&self.context, all)?)))
    }
}
