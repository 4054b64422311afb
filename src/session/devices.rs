//! The devices that a session may run on, best first.

use std::sync::Arc;

use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::error::{Error, Result};
use crate::hardware::DeviceKind;
use crate::session::Options;

/// In the order of preference.
pub(crate) type Devices = Vec<Arc<dyn Device>>;

/// Devices in the order in which they are tried, and why others were passed over.
pub(crate) fn devices(options: &Options) -> Result<(Devices, Vec<String>)> {
    let cpu = || Ok::<Arc<dyn Device>, Error>(Arc::new(CpuDevice::new(options.threads)?));
    let refused = |why| Error::Unsupported { at: format!("device {:?}", options.device).to_lowercase(), why };
    match options.device {
        Some(DeviceKind::Cpu) => Ok((vec![cpu()?], Vec::new())),
        Some(DeviceKind::Cuda) => Ok((vec![cuda(options.ordinal).map_err(refused)?], Vec::new())),
        Some(_) => Err(refused("this version runs on CUDA and on the CPU".into())),
        None => match cuda(options.ordinal) {
            Ok(gpu) if options.strict => Ok((vec![gpu], Vec::new())),
            Ok(gpu) => Ok((vec![gpu, cpu()?], Vec::new())),
            Err(why) => {
                let wgpu = "wgpu: this version has no kernels for it yet".to_string();
                Ok((vec![cpu()?], vec![format!("cuda: {why}"), wgpu, "running on the CPU".to_string()]))
            }
        },
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Arc<dyn Device>, String> {
    use crate::device::cuda::Nvidia;
use crate::device::gpu::GpuDevice;
    let found = crate::hardware::cuda::devices()?;
    let one = found.get(ordinal).ok_or_else(|| format!("there is no device {ordinal}, the driver knows {}", found.len()))?;
    let info = one.info();
    if info.capabilities.is_empty() {
        return Err(format!("{} is of compute capability {}, kernels need 6.1 or more", one.name, one.compute_capability));
    }
    let device = Nvidia::open(ordinal).and_then(|driver| GpuDevice::new(info, driver));
    device.map(|d| Arc::new(d) as Arc<dyn Device>).map_err(|e| e.to_string())
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Arc<dyn Device>, String> {
    Err("built without the feature cuda".into())
}
