//! The devices that a session may run on, best first.

use std::path::PathBuf;
use std::sync::Arc;

use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::error::{Error, Result};
use crate::hardware::DeviceKind;
use crate::hardware::cache;
#[cfg(feature = "gpu")]
use crate::hardware::{DeviceInfo, tuned::Tuned};
use crate::session::Options;
use crate::session::source::Source;

/// Devices in the order in which they are tried, and why others were passed over.
pub(crate) fn sources(options: &Options) -> Result<(Vec<Source>, Vec<String>)> {
    let cpu = || Ok::<Source, Error>(Source::fixed(Arc::new(CpuDevice::new(options.threads)?)));
    let only = |source: Result<Source, String>| Ok((vec![source.map_err(|why| refused(options, why))?], Vec::new()));
    match options.device {
        Some(DeviceKind::Cpu) => return Ok((vec![cpu()?], Vec::new())),
        Some(DeviceKind::Cuda) => return only(reopening(options, cuda)),
        Some(DeviceKind::Wgpu) => return only(reopening(options, wgpu)),
        Some(DeviceKind::Null) => return only(Err("it runs nothing".into())),
        None => {}
    }
    let mut passed_over = Vec::new();
    for (name, source) in [("cuda", reopening(options, cuda)), ("wgpu", reopening(options, wgpu))] {
        match source {
            Ok(gpu) if options.strict => return Ok((vec![gpu], passed_over)),
            Ok(gpu) => return Ok((vec![gpu, cpu()?], passed_over)),
            Err(why) => passed_over.push(format!("{name}: {why}")),
        }
    }
    passed_over.push("running on the CPU".to_string());
    Ok((vec![cpu()?], passed_over))
}

/// The devices that a session with these options may run on, best first, so that several sessions can share them
/// ([`crate::session::Session::with_devices`]). Errors when the device asked for is not here.
pub fn devices(options: &Options) -> Result<Vec<Arc<dyn Device>>> {
    let (sources, _) = sources(options)?;
    Ok(sources.iter().map(Source::device).collect())
}

fn refused(options: &Options, why: String) -> Error {
    let asked = options.device.map_or_else(String::new, |kind| format!(" {kind:?}").to_lowercase());
    Error::Unsupported { at: format!("device{asked}"), why }
}

/// What `open` gives, and gives again when it is lost.
fn reopening(options: &Options, open: fn(&Options) -> Result<Arc<dyn Device>, String>) -> Result<Source, String> {
    let (device, options) = (open(options)?, options.clone());
    Ok(Source::new(device, Box::new(move || open(&options).map_err(|why| refused(&options, why)))))
}

/// With what was measured on this device, by these kernels.
#[cfg(feature = "gpu")]
fn tuned(mut info: DeviceInfo, options: &Options) -> DeviceInfo {
    info.identity += &format!(" | kernels {}", crate::device::gpu::TEXTS_HASH);
    if let Some(path) = kept_in(options, &info.identity) {
        info.tuned = Arc::new(Tuned::read(&path, &info.identity));
    }
    info
}

/// The file of what was measured on the device of this identity.
pub(crate) fn kept_in(options: &Options, identity: &str) -> Option<PathBuf> {
    cache::path(options.cache_dir.as_deref(), identity, "tuned", "tsv")
}

#[cfg(feature = "wgpu")]
fn wgpu(options: &Options) -> Result<Arc<dyn Device>, String> {
    use crate::device::gpu::GpuDevice;
    use crate::device::wgpu::{Settings, Wgpu};
    use crate::hardware::wgpu::{described, opened};
    let ordinal = options.ordinal;
    let found = opened()?;
    let one = found.get(ordinal).ok_or_else(|| format!("there is no adapter {ordinal}, drivers offer {}", found.len()))?;
    let about = described(one);
    let info = tuned(about.info(), options);
    if about.is_software() && options.device.is_none() {
        return Err(format!(
            "{} is a program on the CPU, slower than our own kernels there; --device wgpu asks for it",
            info.name
        ));
    }
    let compiled = cache::path(options.cache_dir.as_deref(), &info.identity, "pipelines", "bin");
    let device = Wgpu::open(one, Settings { compiled, ..Settings::default() }).and_then(|driver| GpuDevice::new(info, driver));
    device.map(|d| Arc::new(d) as Arc<dyn Device>).map_err(|e| e.to_string())
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: &Options) -> Result<Arc<dyn Device>, String> {
    Err("built without the feature wgpu".into())
}

#[cfg(feature = "cuda")]
fn cuda(options: &Options) -> Result<Arc<dyn Device>, String> {
    use crate::device::cuda::Nvidia;
    use crate::device::gpu::GpuDevice;
    let ordinal = options.ordinal;
    let found = crate::hardware::cuda::devices()?;
    let one = found.get(ordinal).ok_or_else(|| format!("there is no device {ordinal}, the driver knows {}", found.len()))?;
    let info = tuned(one.info(), options);
    if info.capabilities.is_empty() {
        return Err(format!("{} is of compute capability {}, kernels need 6.1 or more", one.name, one.compute_capability));
    }
    let device = Nvidia::open(ordinal).and_then(|driver| GpuDevice::new(info, driver));
    device.map(|d| Arc::new(d) as Arc<dyn Device>).map_err(|e| e.to_string())
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &Options) -> Result<Arc<dyn Device>, String> {
    Err("built without the feature cuda".into())
}
