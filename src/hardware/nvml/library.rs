//! The library itself, opened without a panic whatever it lacks.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::device::{Refusals, read};
use crate::hardware::probe::NvmlDevice;

/// NVML from a library of this name or path, else the one that `HALFBYTE_NVML` names, else the system's; in words why there is none.
pub(super) fn open(path: Option<&OsStr>) -> Result<Nvml, String> {
    let mut builder = Nvml::builder();
    let elsewhere = std::env::var_os("HALFBYTE_NVML").filter(|path| !path.is_empty());
    if let Some(path) = path.or(elsewhere.as_deref()) {
        builder.lib_path(path);
    }
    let nvml = builder.init().map_err(|e| match e {
        NvmlError::LibloadingError(_) => "NVML's library (libnvidia-ml) is not installed".to_string(),
        other => format!("NVML cannot be used: {other}"),
    })?;
    if nvml.lib().nvmlShutdown.is_err() {
        // The wrapper panics on drop without this call.
        std::mem::forget(nvml);
        return Err("NVML cannot be used: its library has no nvmlShutdown".into());
    }
    Ok(nvml)
}

/// Every device that NVML knows, or why there is none.
pub(in crate::hardware) fn devices() -> Result<Vec<NvmlDevice>, String> {
    let nvml = open(None)?;
    let count = nvml.device_count().map_err(|e| e.to_string())?;
    let driver = nvml.sys_driver_version().unwrap_or_else(|e| format!("of unknown version ({e})"));
    (0..count).map(|i| one(&nvml, i, &driver)).collect()
}

fn one(nvml: &Nvml, index: u32, driver: &str) -> Result<NvmlDevice, String> {
    let device = nvml.device_by_index(index).map_err(|e| e.to_string())?;
    let reading = read(nvml, &device, &mut Refusals::default());
    let memory = reading.memory.map_err(|why| why.to_string())?;
    let readings = [
        reading.gpu_temperature_c.ok().map(|t| format!("{t} C")),
        reading.power_mw.ok().map(|p| format!("{} W", p / 1000)),
        reading.gpu_busy_percent.ok().map(|u| format!("{u} % busy")),
        reading.sm_clock_mhz.ok().map(|c| format!("{c} MHz")),
    ];
    Ok(NvmlDevice {
        name: device.name().map_err(|e| e.to_string())?,
        uuid: device.uuid().ok(),
        driver: driver.to_string(),
        used_bytes: memory.used_bytes,
        total_bytes: memory.total_bytes,
        state: readings.into_iter().flatten().collect::<Vec<_>>().join(", "),
    })
}
