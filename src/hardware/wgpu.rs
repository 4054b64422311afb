//! wgpu adapters: Vulkan, Metal, DX12.

use wgpu::{Adapter, Backends, Instance, InstanceDescriptor};

use super::probe::WgpuAdapter;

/// Every adapter, or why there is none.
pub(super) fn adapters() -> Result<Vec<WgpuAdapter>, String> {
    let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
    let found = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    if found.is_empty() {
        return Err("no Vulkan, Metal or DX12 driver offers an adapter".into());
    }
    Ok(found.iter().map(one).collect())
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
