//! A CUDA driver that interprets PTX, so that the device's own code, its launches and its kernels run on a machine without a GPU.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use halfbyte::device::cuda::{CudaDevice, Driver, Module, Resolved, ResolvedMap, Value};
use halfbyte::hardware::nvidia;
use halfbyte::{Error, Result};

use crate::ptx_interpreter::{Argument, Gpu, Launch, Module as Text, TensorMap};

#[path = "../../kernels/render.rs"]
#[allow(clippy::duplicate_mod)]
pub mod render;

/// Runs launches at once, warps in the order of the seed.
pub struct Interpreted {
    gpu: Mutex<Gpu>,
    seed: u64,
}

/// The device of this name (see [`nvidia::models`]), interpreted.
pub fn device(model: &str, seed: u64) -> CudaDevice<Interpreted> {
    let info = nvidia::model(model).expect("a known GPU");
    CudaDevice::new(info, Interpreted::new(seed)).unwrap()
}

fn failed(why: impl ToString) -> Error {
    Error::Device { device: "interpreter".into(), why: why.to_string() }
}

/// The variant's text: as built in, or with `HALFBYTE_RENDER=1` as kernels/ has it now, so that a changed kernel needs no build.
pub fn text_of(name: &str) -> Option<&'static str> {
    static NOW: OnceLock<HashMap<String, String>> = OnceLock::new();
    if std::env::var("HALFBYTE_RENDER").is_err() {
        return None;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
    let render = || {
        let all = render::render(std::path::Path::new(folder), |_| true).unwrap_or_else(|e| panic!("{e}"));
        all.into_iter().map(|r| (r.row.name, r.text)).collect()
    };
    Some(NOW.get_or_init(render).get(name).unwrap_or_else(|| panic!("no kernel {name}")))
}

impl Interpreted {
    pub fn new(seed: u64) -> Interpreted {
        Interpreted { gpu: Mutex::default(), seed }
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

    fn allocate(&self, bytes: usize) -> Result<u64> {
        Ok(self.gpu().global.reserve("device memory", bytes))
    }

    fn free(&self, address: u64) {
        self.gpu().global.release(address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.gpu().global.store(address, bytes).map_err(failed)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(self.gpu().global.load(address, bytes.len()).map_err(failed)?);
        Ok(())
    }

    fn load(&self, module: &Module) -> Result<Self::Function> {
        let text = match text_of(module.variant.name) {
            Some(now) => module.fill(now)?,
            None => module.text()?,
        };
        let read = Text::read(&text).map_err(|f| failed(format!("{}: {f}", module.variant.name)))?;
        Ok(std::sync::Arc::new((read, text)))
    }

    fn launch(&self, function: &Self::Function, launch: &Resolved) -> Result<()> {
        let variant = launch.module.variant;
        let entry = function.0.entry(variant.name).map_err(failed)?;
        let launch = Launch {
            grid: launch.grid,
            block: [variant.threads, 1, 1],
            shared_bytes: variant.shared_bytes as usize,
            arguments: launch.values.iter().map(argument).collect(),
            seed: self.seed,
        };
        self.gpu().launch(entry, &launch).map(drop).map_err(|f| failed(format!("{}: {f}", variant.name)))
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
