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
use crate::session::opened::Opened;
use crate::session::source::Open;

/// How a session comes by a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// GPUs with other sessions of the process.
    Shared,
    /// By itself: it may be taken down.
    Alone,
}

/// An open device, and what opens it again.
pub(crate) type Found = (Arc<Opened>, Option<Open>);

/// Devices in the order in which they are tried, and why others were passed over.
pub(crate) fn found(options: &Options, sharing: Sharing) -> Result<(Vec<Found>, Vec<String>)> {
    let cpu = || Ok::<Found, Error>((Arc::new(Opened::new(Arc::new(CpuDevice::new(options.threads)?), None)), None));
    let only = |found: Result<Found, String>| Ok((vec![found.map_err(|why| refused(options, why))?], Vec::new()));
    let gpu = |open| reopening(options, sharing, open);
    // What was written wrongly is no reason to run elsewhere.
    #[cfg(feature = "cuda")]
    crate::device::cuda::Choice::of_environment()?;
    match options.device {
        Some(DeviceKind::Cpu) => return Ok((vec![cpu()?], Vec::new())),
        Some(DeviceKind::Cuda) => return only(gpu(cuda)),
        Some(DeviceKind::Wgpu) => return only(gpu(wgpu)),
        Some(DeviceKind::Null) => return only(Err("it runs nothing".into())),
        None => {}
    }
    let mut passed_over = Vec::new();
    for (name, found) in [("cuda", gpu(cuda)), ("wgpu", gpu(wgpu))] {
        match found {
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
    let (found, _) = found(options, Sharing::Shared)?;
    Ok(found.into_iter().map(|(opened, _)| opened.device.clone()).collect())
}

fn refused(options: &Options, why: String) -> Error {
    let asked = options.device.map_or_else(String::new, |kind| format!(" {kind:?}").to_lowercase());
    Error::Unsupported { at: format!("device{asked}"), why }
}

/// Opens a device of a kind.
type OpenKind = fn(&Options, Sharing) -> Result<Arc<Opened>, String>;

/// What `open` gives, and gives again when it is lost.
fn reopening(options: &Options, sharing: Sharing, open: OpenKind) -> Result<Found, String> {
    let (opened, options) = (open(options, sharing)?, options.clone());
    Ok((opened, Some(Box::new(move || open(&options, sharing).map_err(|why| refused(&options, why))))))
}

/// What `open` gives, or what another session has open where it may be shared.
#[cfg(feature = "gpu")]
fn share(
    info: &DeviceInfo,
    options: &Options,
    sharing: Sharing,
    open: impl FnOnce() -> Result<Opened, String>,
) -> Result<Arc<Opened>, String> {
    match sharing {
        Sharing::Shared => Opened::shared(info, options.ordinal, open),
        Sharing::Alone => open().map(Arc::new),
    }
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
fn wgpu(options: &Options, sharing: Sharing) -> Result<Arc<Opened>, String> {
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
    share(&info, options, sharing, || {
        let driver = Wgpu::open(one, Settings { compiled, ..Settings::default() });
        let device = driver.and_then(|driver| GpuDevice::new(info.clone(), driver)).map_err(|e| e.to_string())?;
        Ok(Opened::new(Arc::new(device), None))
    })
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: &Options, _: Sharing) -> Result<Arc<Opened>, String> {
    Err("built without the feature wgpu".into())
}

#[cfg(feature = "cuda")]
fn cuda(options: &Options, sharing: Sharing) -> Result<Arc<Opened>, String> {
    use crate::device::cuda::Nvidia;
    use crate::device::gpu::GpuDevice;
    use crate::hardware::nvml;
    use crate::session::opened::Readings;
    let ordinal = options.ordinal;
    let found = crate::hardware::cuda::devices()?;
    let one = found.get(ordinal).ok_or_else(|| format!("there is no device {ordinal}, the driver knows {}", found.len()))?;
    let info = tuned(one.info(), options);
    if info.capabilities.is_empty() {
        return Err(format!("{} is of compute capability {}, kernels need 6.1 or more", one.name, one.compute_capability));
    }
    let uuid = one.uuid.clone();
    let read = move || nvml::Device::open(&uuid).ok().map(|device| Box::new(device) as Readings);
    share(&info, options, sharing, || {
        let device = Nvidia::open(ordinal).and_then(|driver| GpuDevice::new(info.clone(), driver)).map_err(|e| e.to_string())?;
        Ok(Opened::new(Arc::new(device), Some(Box::new(read))))
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &Options, _: Sharing) -> Result<Arc<Opened>, String> {
    Err("built without the feature cuda".into())
}
