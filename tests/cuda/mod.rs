//! A CUDA driver that interprets PTX, so that the device's own code, its launches and its kernels run on a machine without a GPU.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use halfbyte::device::gpu::{Driver, GpuDevice, Module, Resolved, ResolvedMap, Value};
use halfbyte::hardware::nvidia;
use halfbyte::{Error, Result};

use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module as Text, Statistics, TensorMap, fault};

#[path = "../../kernels/render.rs"]
#[allow(clippy::duplicate_mod)]
pub mod render;

/// Runs launches at once, warps in the order of the seed.
pub struct Interpreted {
    gpu: Mutex<Gpu>,
    seed: u64,
    /// A kernel's name, and the text that stands for its own.
    instead: Option<(&'static str, String)>,
    seen: Mutex<Seen>,
}

/// What happened on the device.
#[derive(Default)]
pub struct Seen {
    /// The last fault.
    pub fault: Option<Fault>,
    /// Names of the kernels launched, and what the launches did.
    pub launches: Vec<(&'static str, Statistics)>,
}

/// The device of this name (see [`nvidia::models`]), interpreted.
pub fn device(model: &str, seed: u64) -> GpuDevice<Interpreted> {
    let info = nvidia::model(model).expect("a known GPU");
    GpuDevice::new(info, Interpreted::new(seed)).unwrap()
}

/// The same, on which a kernel has another text, not filled yet. It takes one command at a time, and what is written just behind
/// an output is an error there.
pub fn device_with(model: &str, seed: u64, kernel: &'static str, text: String) -> GpuDevice<Interpreted> {
    let info = nvidia::model(model).expect("a known GPU");
    GpuDevice::new(info, Interpreted { instead: Some((kernel, text)), ..Interpreted::new(seed) }).unwrap()
}

/// The variant's text: as built in, or with `HALFBYTE_RENDER=1` as kernels/ has it now, so that a changed kernel needs no build.
pub fn text_of(name: &str) -> Option<&'static str> {
    static NOW: OnceLock<HashMap<String, String>> = OnceLock::new();
    if std::env::var("HALFBYTE_RENDER").is_err() {
        return None;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
    let render = || {
        let all = render::render(std::path::Path::new(folder), |_: &render::Row| true).unwrap_or_else(|e| panic!("{e}"));
        all.into_iter().map(|r| (r.row.name, r.text)).collect()
    };
    Some(NOW.get_or_init(render).get(name).unwrap_or_else(|| panic!("no kernel {name}")))
}

impl Interpreted {
    pub fn new(seed: u64) -> Interpreted {
        Interpreted { gpu: Mutex::default(), seed, instead: None, seen: Mutex::default() }
    }

    pub fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The error of a fault, which it keeps.
    fn failed(&self, what: &str, fault: Fault) -> Error {
        let why = format!("{what}{fault}");
        self.seen().fault = Some(fault);
        Error::Device { device: "interpreter".into(), why }
    }

    fn gpu(&self) -> std::sync::MutexGuard<'_, Gpu> {
        self.gpu.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn argument(value: &Value) -> Argument {
    match value {
        Value::Bytes(bytes) => Argument::Bytes(bytes.clone()),
        Value::Map(ResolvedMap { address, element, dims, strides, extents, swizzle_bytes }) => Argument::Map(TensorMap {
            address: *address,
            element_bytes: element.bytes(),
            dims: dims.clone(),
            strides: strides.clone(),
            extents: extents.iter().map(|&e| e as usize).collect(),
            swizzle_bytes: *swizzle_bytes as usize,
        }),
    }
}

impl Driver for Interpreted {
    type Function = std::sync::Arc<(Text, String)>;
    type Event = ();

    /// The interpreter catches what reaches beyond an allocation.
    fn is_pooled(&self) -> bool {
        false
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        Ok(self.gpu().global.reserve("device memory", bytes))
    }

    fn free(&self, address: u64) {
        self.gpu().global.release(address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.gpu().global.store(address, bytes).map_err(|f| self.failed("", f))
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let gpu = self.gpu();
        let written = |at: u64| gpu.global.load(at, 1).is_ok();
        let behind = address + bytes.len() as u64;
        let found = match self.instead.is_some() && (behind..behind + 64).any(written) {
            true => fault(Kind::Bounds, "something was written behind an output"),
            false => gpu.global.load(address, bytes.len()),
        };
        bytes.copy_from_slice(found.map_err(|f| self.failed("", f))?);
        Ok(())
    }

    fn load(&self, module: &Module) -> Result<Self::Function> {
        let name = module.variant.name;
        let text = match (&self.instead, text_of(name)) {
            (Some((kernel, text)), _) if *kernel == name => module.fill(text)?,
            (_, Some(now)) => module.fill(now)?,
            _ => module.text()?,
        };
        let read = Text::read(&text).map_err(|f| self.failed(&format!("{name}: "), f))?;
        Ok(std::sync::Arc::new((read, text)))
    }

    fn launch(&self, function: &Self::Function, launch: &Resolved) -> Result<()> {
        let variant = launch.module.variant;
        let named = |f: Fault| self.failed(&format!("{}: ", variant.name), f);
        let entry = function.0.entry(variant.name).map_err(named)?;
        let launch = Launch {
            grid: launch.grid,
            block: [variant.threads, 1, 1],
            shared_bytes: variant.shared_bytes as usize,
            arguments: launch.values.iter().map(argument).collect(),
            seed: self.seed,
        };
        let statistics = self.gpu().launch(entry, &launch).map_err(named)?;
        self.seen().launches.push((variant.name, statistics));
        Ok(())
    }

    fn event(&self) -> Result<()> {
        Ok(())
    }

    fn elapsed_us(&self, _: &(), _: &()) -> Result<f64> {
        Ok(0.0)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
