//! wgpu adapters: Vulkan, Metal, DX12.

use wgpu::{Adapter, AdapterInfo, Backends, DeviceType, Features, Instance, InstanceDescriptor, InstanceFlags};

use super::probe::WgpuAdapter;
use super::{Caches, Capabilities, DeviceInfo, DeviceKind, Peaks};

/// Every adapter, or why there is none.
pub(super) fn adapters() -> Result<Vec<WgpuAdapter>, String> {
    Ok(opened()?.iter().map(one).collect())
}

/// Every adapter, discrete GPUs first and software last, or why there is none.
pub fn opened() -> Result<Vec<Adapter>, String> {
    let mut description = InstanceDescriptor::new_without_display_handle();
    // It would add a dispatch to each indirect one, of which there is none.
    description.flags.remove(InstanceFlags::VALIDATION_INDIRECT_CALL);
    let instance = Instance::new(description);
    let mut found = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    if found.is_empty() {
        return Err("no Vulkan, Metal or DX12 driver offers an adapter".into());
    }
    found.sort_by_key(|a| match a.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    Ok(found)
}

/// Whether the adapter is a program on the CPU.
pub fn is_software(adapter: &Adapter) -> bool {
    adapter.get_info().device_type == DeviceType::Cpu
}

/// The adapter as kernels and the chooser see it. Drivers tell neither rates nor cores: the peaks are guesses from its kind.
pub fn info(adapter: &Adapter) -> DeviceInfo {
    let (about, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let has = |feature: Features, capability: Capabilities| {
        if features.contains(feature) { capability } else { Capabilities::empty() }
    };
    DeviceInfo {
        kind: DeviceKind::Wgpu,
        capabilities: has(Features::SHADER_F16, Capabilities::SHADER_F16)
            | has(Features::SHADER_INT64, Capabilities::SHADER_INT64)
            | has(Features::SHADER_F64, Capabilities::SHADER_F64)
            | has(Features::SUBGROUP, Capabilities::SUBGROUPS),
        cores: 1,
        threads: 1,
        caches: Caches { l1d_bytes: 0, l2_bytes: 0, l3_bytes: 0 },
        shared_bytes: limits.max_compute_workgroup_storage_size as usize,
        memory_bytes: 0,
        peaks: peaks(&about),
        name: about.name,
    }
}

fn peaks(about: &AdapterInfo) -> Peaks {
    let (f32_gflops, read_gbps) = match about.device_type {
        DeviceType::DiscreteGpu => (10_000.0, 400.0),
        DeviceType::Cpu => (4.0, 2.0),
        _ => (1_000.0, 50.0),
    };
    Peaks { f32_gflops, f16_gflops: f32_gflops, int8_gops: 2.0 * f32_gflops, read_gbps }
}

fn one(adapter: &Adapter) -> WgpuAdapter {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    WgpuAdapter {
        name: info.name,
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
        features: features.iter_names().map(|(n, _)| n.to_lowercase().replace('_', "-")).collect(),
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        max_buffer_bytes: limits.max_buffer_size,
        max_storage_buffer_bytes: limits.max_storage_buffer_binding_size,
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups_per_axis: limits.max_compute_workgroups_per_dimension,
        workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
    }
}
