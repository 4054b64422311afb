//! A device read through NVML.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, RetirementCause, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_MEMORY_TEMP;

use super::library;
use super::reading::{Absent, Identity, Known, Memory, Process, Reading, Remapped, Retired, Throttle};

type Handle<'a> = nvml_wrapper::Device<'a>;

impl From<NvmlError> for Absent {
    fn from(error: NvmlError) -> Self {
        use NvmlError::*;
        // NVML_ERROR_ARGUMENT_VERSION_MISMATCH and NVML_ERROR_DEPRECATED, which the wrapper does not name.
        const NOT_THIS_VERSION: std::ops::RangeInclusive<u32> = 25..=26;
        match error {
            NotSupported | VgpuEccNotSupported => Absent::NotSupported,
            UnexpectedVariant(code) if NOT_THIS_VERSION.contains(&code) => Absent::NotSupported,
            NoPermission => Absent::NoPermission,
            FailedToLoadSymbol(_) | FunctionNotFound => Absent::NoSymbol,
            GpuLost => Absent::Lost,
            ResetRequired => Absent::ResetRequired,
            other => Absent::Failed(other.to_string()),
        }
    }
}

/// A device and what is known of its refusals: what it does not offer is asked for once, and nothing once it is lost. Each item
/// is a new reading; there is no last one.
pub struct Device {
    nvml: Arc<Nvml>,
    uuid: String,
    refusals: Refusals,
}

impl Device {
    /// The device of this UUID (`GPU-...` or `MIG-...`): CUDA and NVML number devices differently. Errors with why NVML cannot
    /// be used; a device that it does not know is one of which all fields are absent.
    pub fn open(uuid: &str) -> Result<Self, String> {
        Self::open_in(None, uuid)
    }

    /// The same with NVML's library at `path`.
    pub fn open_at(path: impl AsRef<OsStr>, uuid: &str) -> Result<Self, String> {
        Self::open_in(Some(path.as_ref()), uuid)
    }

    fn open_in(path: Option<&OsStr>, uuid: &str) -> Result<Self, String> {
        Ok(Device { nvml: Arc::new(library::open(path)?), uuid: uuid.into(), refusals: Refusals::default() })
    }

    /// All devices, in NVML's order. Errors with why NVML cannot be used, or with why it does not tell a device's UUID.
    pub fn all() -> Result<Vec<Self>, String> {
        let nvml = Arc::new(library::open(None)?);
        let count = nvml.device_count().map_err(|e| e.to_string())?;
        let uuid = |i| nvml.device_by_index(i).and_then(|device| device.uuid()).map_err(|e| e.to_string());
        let one = |i| Ok(Device { nvml: nvml.clone(), uuid: uuid(i)?, refusals: Refusals::default() });
        (0..count).map(one).collect()
    }

    /// What the device is called, as far as it tells.
    pub fn identity(&self) -> Identity {
        let device = self.nvml.device_by_uuid(&*self.uuid);
        let told = device.as_ref().ok();
        Identity {
            index: told.and_then(|d| d.index().ok()),
            uuid: self.uuid.clone(),
            name: told.and_then(|d| d.name().ok()).unwrap_or_default(),
            minor: told.and_then(|d| d.minor_number().ok()),
        }
    }

    /// A reading of now. Takes microseconds to milliseconds, by driver.
    pub fn read(&mut self) -> Reading {
        let nvml = self.nvml.clone();
        let no = &mut self.refusals;
        match no.ask("device", || nvml.device_by_uuid(&*self.uuid)) {
            Ok(device) => {
                let reading = read(&nvml, &device, no);
                Reading { lost: no.lost.clone(), ..reading }
            }
            Err(why) => Reading::absent(why),
        }
    }
}

impl Iterator for Device {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        Some(self.read())
    }
}

/// What a device refused for good.
#[derive(Default)]
pub(super) struct Refusals {
    lasting: HashMap<&'static str, Absent>,
    lost: Option<Absent>,
}

impl Refusals {
    fn ask<T>(&mut self, what: &'static str, call: impl FnOnce() -> Result<T, NvmlError>) -> Known<T> {
        if let Some(why) = self.lost.as_ref().or_else(|| self.lasting.get(what)) {
            return Err(why.clone());
        }
        call().map_err(|error| {
            let why = Absent::from(error);
            if why.is_lasting() {
                self.lasting.insert(what, why.clone());
            } else if why.is_fatal() {
                self.lost = Some(why.clone());
            }
            why
        })
    }
}

/// All fields; `lost` is the caller's to set.
pub(super) fn read(nvml: &Nvml, device: &Handle, no: &mut Refusals) -> Reading {
    use EccCounter::{Aggregate, Volatile};
    use MemoryError::{Corrected, Uncorrected};
    let busy = no.ask("utilisation", || device.utilization_rates());
    let threshold = |kind| move || device.temperature_threshold(kind);
    let ecc = |kind, counter| move || device.total_ecc_errors(kind, counter);
    Reading {
        lost: None,
        memory: memory(nvml, device, no),
        gpu_busy_percent: busy.clone().map(|b| b.gpu),
        memory_busy_percent: busy.map(|b| b.memory),
        gpu_temperature_c: no.ask("temperature", || device.temperature(TemperatureSensor::Gpu)),
        memory_temperature_c: no.ask("memory temperature", || memory_temperature(device)),
        slowdown_c: no.ask("slowdown", threshold(TemperatureThreshold::Slowdown)),
        shutdown_c: no.ask("shutdown", threshold(TemperatureThreshold::Shutdown)),
        memory_max_c: no.ask("memory max", threshold(TemperatureThreshold::MemoryMax)),
        power_mw: no.ask("power", || device.power_usage()),
        power_limit_mw: no.ask("power limit", || device.enforced_power_limit()),
        energy_mj: no.ask("energy", || device.total_energy_consumption()),
        sm_clock_mhz: no.ask("SM clock", || device.clock_info(Clock::SM)),
        memory_clock_mhz: no.ask("memory clock", || device.clock_info(Clock::Memory)),
        throttle: no.ask("throttle", || throttle(device)),
        ecc_corrected_volatile: no.ask("ECC corrected volatile", ecc(Corrected, Volatile)),
        ecc_uncorrected_volatile: no.ask("ECC uncorrected volatile", ecc(Uncorrected, Volatile)),
        ecc_corrected_aggregate: no.ask("ECC corrected aggregate", ecc(Corrected, Aggregate)),
        ecc_uncorrected_aggregate: no.ask("ECC uncorrected aggregate", ecc(Uncorrected, Aggregate)),
        retired: no.ask("retired", || retired(device)),
        remapped: no.ask("remapped", || remapped(nvml, device)),
        pcie_replays: no.ask("replays", || device.pcie_replay_counter()),
        processes: no.ask("processes", || processes(device)),
        mig: no.ask("MIG", || device.mig_mode()).map(|mode| mode.current != 0),
    }
}

/// By the second version of the call, or the first where there is no second (before R510, WSL).
fn memory(nvml: &Nvml, device: &Handle, no: &mut Refusals) -> Known<Memory> {
    let second = no.ask("memory", || device.memory_info()).map(|m| Memory {
        total_bytes: m.total,
        free_bytes: m.free,
        used_bytes: m.used,
        reserved_bytes: Some(m.reserved),
    });
    second.or_else(|why| no.ask("memory, first version", || first_memory(nvml, device)).map_err(|_| why))
}

fn first_memory(nvml: &Nvml, device: &Handle) -> Result<Memory, NvmlError> {
    let call = symbol(&nvml.lib().nvmlDeviceGetMemoryInfo)?;
    // SAFETY: three integers, of which all values are valid.
    let mut told = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is NVML's own, which writes to `told`.
    nvml_try(unsafe { call(device.handle(), &mut told) })?;
    Ok(Memory { total_bytes: told.total, free_bytes: told.free, used_bytes: told.used, reserved_bytes: None })
}

/// A call that the wrapper does not make; `NvmlLib` holds an error in place of a symbol that is missing.
fn symbol<F: Copy, E: ToString>(loaded: &Result<F, E>) -> Result<F, NvmlError> {
    loaded.as_ref().copied().map_err(|e| NvmlError::FailedToLoadSymbol(e.to_string()))
}

fn memory_temperature(device: &Handle) -> Result<u32, NvmlError> {
    let mut samples = device.field_values_for(&[FieldId(NVML_FI_DEV_MEMORY_TEMP)])?;
    match samples.pop().ok_or(NvmlError::NoData)??.value? {
        SampleValue::U32(c) => Ok(c),
        SampleValue::U64(c) => Ok(c as u32),
        _ => Err(NvmlError::NoData),
    }
}

fn throttle(device: &Handle) -> Result<Throttle, NvmlError> {
    let reasons = device.current_throttle_reasons()?;
    Ok(Throttle::from_bits_retain(reasons.bits()))
}

fn retired(device: &Handle) -> Result<Retired, NvmlError> {
    let count = |cause| device.retired_pages(cause).map(|pages| pages.len() as u64);
    Ok(Retired {
        single_bit: count(RetirementCause::MultipleSingleBitEccErrors)?,
        double_bit: count(RetirementCause::DoubleBitEccError)?,
    })
}

fn remapped(nvml: &Nvml, device: &Handle) -> Result<Remapped, NvmlError> {
    let call = symbol(&nvml.lib().nvmlDeviceGetRemappedRows)?;
    let [mut correctable, mut uncorrectable, mut pending, mut failed] = [0; 4];
    // SAFETY: the handle is NVML's own, which writes four integers.
    nvml_try(unsafe { call(device.handle(), &mut correctable, &mut uncorrectable, &mut pending, &mut failed) })?;
    Ok(Remapped { correctable, uncorrectable, pending: pending != 0, failed: failed != 0 })
}

fn processes(device: &Handle) -> Result<Vec<Process>, NvmlError> {
    let used = |memory| match memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    let all = device.running_compute_processes()?;
    Ok(all.into_iter().map(|p| Process { id: p.pid, used_bytes: used(p.used_gpu_memory) }).collect())
}
