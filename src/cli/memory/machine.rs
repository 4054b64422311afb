//! The memory of this machine's devices at one moment.

use crate::hardware::host::HostMemory;
use crate::hardware::nvml::{Absent, Identity, Memory, Reading};
use crate::hardware::{amdgpu, cpu};
use crate::memory::Stats;
use crate::memory::pressure::{Advice, Facts, Gauge, Level, Usage, Workload, recommend};

/// All devices.
#[derive(serde::Serialize)]
pub struct Machine {
    /// The host.
    pub host: Host,
    /// What NVML and Linux' amdgpu driver know.
    pub gpus: Vec<Gpu>,
    /// Why there are none.
    pub no_gpus: Option<String>,
}

/// The host.
#[derive(serde::Serialize)]
#[allow(missing_docs)]
pub struct Host {
    pub name: String,
    pub cpu: String,
    pub level: Level,
    pub memory: HostMemory,
}

/// A GPU.
#[derive(serde::Serialize)]
#[allow(missing_docs)]
pub struct Gpu {
    pub identity: Identity,
    pub level: Level,
    pub reading: Reading,
    pub advice: Vec<Advice>,
}

impl Machine {
    /// What GPUs told, as metrics want it.
    pub fn readings(&self) -> Vec<(Identity, &Reading)> {
        self.gpus.iter().map(|gpu| (gpu.identity.clone(), &gpu.reading)).collect()
    }
}

/// A GPU, its readings, and its level of pressure from sample to sample.
type Source = (Identity, Box<dyn Iterator<Item = Reading>>, Gauge);

/// What is sampled.
pub struct Sensors {
    host_name: String,
    host: Gauge,
    gpus: Vec<Source>,
    no_gpus: Option<String>,
}

impl Sensors {
    /// Of all devices found.
    pub fn new() -> Self {
        let (mut gpus, why) = nvidia().map_or_else(|why| (Vec::new(), why), |all| (all, "NVML knows no device".into()));
        gpus.extend(amdgpu::devices().into_iter().map(|(who, device)| source(who, device)));
        let no_gpus = gpus.is_empty().then(|| format!("{why}; no AMD GPU"));
        Sensors { host_name: host_name(), host: Gauge::default(), gpus, no_gpus }
    }

    /// All of it now.
    pub fn sample(&mut self) -> Machine {
        let memory = HostMemory::read();
        let (level, _) = self.host.next(&host_reading(&memory), &Usage::default());
        let host = Host { name: self.host_name.clone(), cpu: cpu::info(1).name, level, memory };
        let gpus = self.gpus.iter_mut().filter_map(|(identity, readings, gauge)| {
            let reading = readings.next()?;
            let (level, _) = gauge.next(&reading, &Usage::default());
            let (stats, workload) = (Stats::default(), Workload::default());
            let facts = Facts { level, reading: &reading, stats: &stats, before: None, workload: &workload };
            let advice = recommend(&facts);
            Some(Gpu { identity: identity.clone(), level, advice, reading })
        });
        Machine { host, gpus: gpus.collect(), no_gpus: self.no_gpus.clone() }
    }
}

impl Default for Sensors {
    fn default() -> Self {
        Self::new()
    }
}

fn source(who: Identity, device: impl Iterator<Item = Reading> + 'static) -> Source {
    (who, Box::new(device), Gauge::default())
}

#[cfg(feature = "cuda")]
fn nvidia() -> Result<Vec<Source>, String> {
    let all = crate::hardware::nvml::Device::all()?;
    Ok(all.into_iter().map(|device| source(device.identity(), device)).collect())
}

#[cfg(not(feature = "cuda"))]
fn nvidia() -> Result<Vec<Source>, String> {
    Err("built without the feature cuda".into())
}

/// The host's memory as levels of pressure want it.
fn host_reading(memory: &HostMemory) -> Reading {
    let room = memory.room().map(|(total_bytes, free_bytes)| {
        let used_bytes = total_bytes.saturating_sub(free_bytes);
        Memory { total_bytes, free_bytes, used_bytes, reserved_bytes: None }
    });
    Reading { memory: room.ok_or(Absent::NotSupported), ..Reading::absent(Absent::NotAsked) }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|n| n.trim().to_string()).unwrap_or_default()
}
