//! Everything that the machine has, each section saying plainly why it is absent.

use std::sync::Arc;

use super::topology::Topology;
use super::{Caches, Capabilities, DeviceInfo, DeviceKind, Peaks, cpu, nvidia, roofline};

/// What was found, or why nothing was.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Section<T> {
    /// At least one.
    Found(Vec<T>),
    /// None, for this reason.
    Absent(String),
}

impl<T> From<Result<Vec<T>, String>> for Section<T> {
    fn from(found: Result<Vec<T>, String>) -> Self {
        match found {
            Ok(all) if all.is_empty() => Section::Absent("the driver knows no device".into()),
            Ok(all) => Section::Found(all),
            Err(why) => Section::Absent(why),
        }
    }
}

/// Rates reached with so many threads.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Measured {
    pub threads: usize,
    pub peaks: Peaks,
}

/// The CPU.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct CpuSection {
    pub name: String,
    /// Instruction sets that kernels ask for.
    pub capabilities: String,
    pub caches: Caches,
    pub memory_bytes: u64,
    pub topology: Topology,
    pub measured: Vec<Measured>,
}

/// A CUDA device.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct CudaDevice {
    pub name: String,
    /// What NVML knows it by.
    pub uuid: String,
    /// Newest CUDA version that the driver speaks.
    pub driver: String,
    pub compute_capability: String,
    pub sms: i32,
    pub memory_bytes: usize,
    /// Highest clock.
    pub clock_khz: i32,
    /// By the memory's clock and width.
    pub memory_gbps: f64,
    pub l2_bytes: i32,
    pub shared_bytes_per_block: i32,
    /// Of virtual memory management, where the device has it.
    pub vmm_granularity_bytes: Option<u64>,
    pub why_no_vmm: Option<String>,
}

impl CudaDevice {
    /// NVML's readings of this device. By UUID: CUDA and NVML number devices differently.
    pub fn readings<'a>(&self, nvml: &'a Section<NvmlDevice>) -> Option<&'a NvmlDevice> {
        let Section::Found(all) = nvml else { return None };
        all.iter().find(|d| d.uuid.as_deref() == Some(&self.uuid))
    }

    /// As the chooser sees it.
    pub fn info(&self) -> DeviceInfo {
        let sm = self.compute_capability.replace('.', "").parse().unwrap_or(0);
        let figures = nvidia::Figures {
            sm,
            sms: self.sms.max(0) as usize,
            memory_bytes: self.memory_bytes as u64,
            clock_khz: self.clock_khz.max(0) as u32,
            memory_gbps: self.memory_gbps,
            l2_bytes: self.l2_bytes.max(0) as usize,
            shared_bytes: self.shared_bytes_per_block.max(0) as usize,
        };
        let mut info = nvidia::info(&self.name, figures);
        // Older drivers know `mma.sp` without `ordered_metadata` alone, which newer devices run slowly.
        let version = self.driver.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        info.capabilities.set(Capabilities::MMA_SP, info.capabilities.contains(Capabilities::MMA_SP) && version >= Some((12, 5)));
        DeviceInfo { identity: format!("{} | CUDA {}", self.name, self.driver), ..info }
    }
}

/// A device as NVML sees it.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct NvmlDevice {
    pub name: String,
    /// What CUDA knows it by; absent when the device does not tell.
    pub uuid: Option<String>,
    pub driver: String,
    pub used_bytes: u64,
    pub total_bytes: u64,
    /// Temperature, power, utilisation and clock, where the device tells them.
    pub state: String,
}

/// A wgpu adapter.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct WgpuAdapter {
    pub name: String,
    pub kind: String,
    pub backend: String,
    pub driver: String,
    /// All that the adapter offers.
    pub features: Vec<String>,
    /// Smallest and largest.
    pub subgroup_sizes: [u32; 2],
    /// Cooperative matrices in a subgroup: the operands' rows, columns and inner extent, their type and the sums'.
    pub cooperative_matrices: Vec<String>,
    pub max_buffer_bytes: u64,
    pub max_storage_buffer_bytes: u64,
    pub max_storage_buffers_per_shader: u32,
    pub max_workgroup_invocations: u32,
    pub max_workgroups_per_axis: u32,
    pub workgroup_storage_bytes: u32,
}

impl WgpuAdapter {
    /// Whether it is a program on the CPU.
    pub fn is_software(&self) -> bool {
        self.kind == "Cpu"
    }

    /// As the chooser sees it. Drivers tell neither rates nor cores: both are guesses from its kind.
    pub fn info(&self) -> DeviceInfo {
        let has = |feature: &str, c| if self.features.iter().any(|f| f == feature) { c } else { Capabilities::empty() };
        let (f32_gflops, read_gbps, cores) = match self.kind.as_str() {
            "DiscreteGpu" => (10_000.0, 400.0, 32),
            "Cpu" => (4.0, 2.0, 4),
            _ => (1_000.0, 50.0, 8),
        };
        DeviceInfo {
            kind: DeviceKind::Wgpu,
            name: self.name.clone(),
            capabilities: has("shader-f16", Capabilities::SHADER_F16)
                | has("shader-int64", Capabilities::SHADER_INT64)
                | has("shader-f64", Capabilities::SHADER_F64)
                | has("subgroup", Capabilities::SUBGROUPS)
                | if self.max_storage_buffers_per_shader >= 20 { Capabilities::BUFFERS_20 } else { Capabilities::empty() }
                | self.cooperative(),
            cores,
            threads: 1,
            caches: Caches { l1d_bytes: 0, l2_bytes: 0, l3_bytes: 0 },
            shared_bytes: self.workgroup_storage_bytes as usize,
            memory_bytes: 0,
            operand_bytes: self.max_storage_buffer_bytes,
            peaks: Peaks { f32_gflops, f16_gflops: f32_gflops, int8_gops: 2.0 * f32_gflops, read_gbps },
            identity: format!("{} | {} | {}", self.name, self.backend, self.driver),
            tuned: Arc::default(),
        }
    }
}

impl WgpuAdapter {
    /// What kernels with cooperative matrices ask for: they count on the size of subgroups.
    fn cooperative(&self) -> Capabilities {
        let has = |what: &str| self.cooperative_matrices.iter().any(|m| m == what);
        match self.subgroup_sizes {
            [32, 32] if has("16x16x16 f16 f32") => Capabilities::COOP_16,
            [32, 32] if has("8x8x8 f16 f32") => Capabilities::COOP_8,
            [8, 8] if has("8x8x8 f16 f32") => Capabilities::COOP_8_NARROW,
            _ => Capabilities::empty(),
        }
    }
}

/// The whole machine.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Probe {
    pub cpu: CpuSection,
    pub cuda: Section<CudaDevice>,
    pub nvml: Section<NvmlDevice>,
    pub wgpu: Section<WgpuAdapter>,
}

impl Probe {
    /// Looks and measures; takes about a second.
    pub fn new() -> Self {
        let info = cpu::info(1);
        let threads = info.cores;
        let mut counts = vec![1, threads];
        counts.dedup();
        let measured = counts.into_iter().map(|threads| Measured { threads, peaks: roofline::measure(threads) }).collect();
        Probe {
            cpu: CpuSection {
                name: info.name,
                capabilities: info.capabilities.to_string(),
                caches: info.caches,
                memory_bytes: info.memory_bytes,
                topology: Topology::read(),
                measured,
            },
            cuda: cuda().into(),
            nvml: nvml().into(),
            wgpu: wgpu().into(),
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Vec<CudaDevice>, String> {
    super::cuda::devices()
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Vec<CudaDevice>, String> {
    Err("built without the feature cuda".into())
}

#[cfg(feature = "cuda")]
fn nvml() -> Result<Vec<NvmlDevice>, String> {
    super::nvml::devices()
}

#[cfg(not(feature = "cuda"))]
fn nvml() -> Result<Vec<NvmlDevice>, String> {
    Err("built without the feature cuda".into())
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Vec<WgpuAdapter>, String> {
    super::wgpu::adapters()
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Vec<WgpuAdapter>, String> {
    Err("built without the feature wgpu".into())
}

/// Adapter `ordinal` as the chooser sees it, or why there is none.
pub fn wgpu_info(ordinal: usize) -> Result<DeviceInfo, String> {
    let found = wgpu()?;
    let one = found.get(ordinal).ok_or_else(|| format!("there is no adapter {ordinal}, drivers offer {}", found.len()))?;
    Ok(one.info())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_drivers_have_no_sparse_products() {
        let has = |driver: &str, capability: &str| {
            let device = CudaDevice {
                name: "a GPU".into(),
                uuid: String::new(),
                driver: driver.into(),
                compute_capability: capability.into(),
                sms: 1,
                memory_bytes: 1,
                clock_khz: 1,
                memory_gbps: 1.0,
                l2_bytes: 1,
                shared_bytes_per_block: 1,
                vmm_granularity_bytes: None,
                why_no_vmm: None,
            };
            device.info().capabilities.contains(Capabilities::MMA_SP)
        };
        assert!(has("12.5", "8.0") && has("13.0", "9.0") && has("12.10", "8.9"));
        assert!(!has("12.4", "8.0") && !has("11.8", "9.0") && !has("12.8", "7.5") && !has("", "8.0"));
    }
}
