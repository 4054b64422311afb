//! wgpu adapters: Vulkan, Metal, DX12.

use wgpu::{Adapter, Backends, Features, Instance, InstanceDescriptor};

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
    let named = [("f16", Features::SHADER_F16), ("subgroups", Features::SUBGROUP), ("timestamps", Features::TIMESTAMP_QUERY)];
    WgpuAdapter {
        name: info.name,
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
        features: named.iter().filter(|(_, f)| features.contains(*f)).map(|(n, _)| n.to_string()).collect(),
        max_storage_buffer_bytes: limits.max_storage_buffer_binding_size,
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
    }
}
