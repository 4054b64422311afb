//! wgpu adapters: Vulkan, Metal, DX12.

use std::sync::OnceLock;

use wgpu::{Adapter, Backends, CooperativeMatrixProperties, DeviceType, Instance, InstanceDescriptor, InstanceFlags};

use super::probe::WgpuAdapter;

/// Every adapter, or why there is none.
pub fn adapters() -> Result<Vec<WgpuAdapter>, String> {
    Ok(opened()?.iter().map(described).collect())
}

/// Every adapter, discrete GPUs first and software last, or why there is none. Drivers are asked once in a process: it takes them
/// 60 to 140 ms.
pub fn opened() -> Result<&'static [Adapter], String> {
    static FOUND: OnceLock<Result<Vec<Adapter>, String>> = OnceLock::new();
    FOUND.get_or_init(enumerate).as_deref().map_err(Clone::clone)
}

fn enumerate() -> Result<Vec<Adapter>, String> {
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

/// What an adapter says of itself.
pub fn described(adapter: &Adapter) -> WgpuAdapter {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    WgpuAdapter {
        name: info.name,
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
        features: features.iter_names().map(|(n, _)| n.to_lowercase().replace('_', "-")).collect(),
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        cooperative_matrices: adapter.cooperative_matrix_properties().iter().map(cooperative).collect(),
        max_buffer_bytes: limits.max_buffer_size,
        max_storage_buffer_bytes: limits.max_storage_buffer_binding_size,
        max_storage_buffers_per_shader: limits.max_storage_buffers_per_shader_stage,
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups_per_axis: limits.max_compute_workgroups_per_dimension,
        workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
    }
}

fn cooperative(p: &CooperativeMatrixProperties) -> String {
    format!("{}x{}x{} {:?} {:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type).to_lowercase()
}
