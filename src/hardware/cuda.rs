//! CUDA devices, through the driver alone.

use std::ffi::{CStr, c_char, c_int};

use cudarc::driver::sys::{
    self, CUdevice, CUdevice_attribute as Attribute, CUmemAllocationGranularity_flags as Granularity,
    CUmemAllocationHandleType as HandleType, CUmemAllocationProp, CUmemAllocationProp_st__bindgen_ty_1 as AllocationFlags,
    CUmemAllocationType as AllocationType, CUmemLocation, CUmemLocationType as LocationType,
};

use super::libcuda;
use super::probe::CudaDevice;

/// Every CUDA device, or why there is none.
pub fn devices() -> Result<Vec<CudaDevice>, String> {
    libcuda::usable()?;
    let driver = driver_version()?;
    // SAFETY: the driver writes one integer.
    let count = asked(|n: &mut c_int| unsafe { sys::cuDeviceGetCount(n) })?;
    (0..count).map(|i| one(device(i as usize)?, &driver)).collect()
}

/// The driver's name for device `ordinal`.
pub fn device(ordinal: usize) -> Result<CUdevice, String> {
    libcuda::usable()?;
    let ordinal = c_int::try_from(ordinal).map_err(|_| format!("there is no device {ordinal}"))?;
    // SAFETY: the driver writes one integer.
    asked(|d: &mut CUdevice| unsafe { sys::cuDeviceGet(d, ordinal) })
}

/// What a call writes; the driver's answer in words when it fails.
fn asked<T: Default>(call: impl FnOnce(&mut T) -> sys::CUresult) -> Result<T, String> {
    let mut value = T::default();
    match call(&mut value) as u32 {
        0 => Ok(value),
        code => Err(format!("the NVIDIA driver answers {}", libcuda::describe(code))),
    }
}

/// The newest CUDA version that the driver speaks, e.g. "12.4".
fn driver_version() -> Result<String, String> {
    // SAFETY: the driver writes one integer.
    let version = asked(|v: &mut c_int| unsafe { sys::cuDriverGetVersion(v) })?;
    Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn one(device: CUdevice, driver: &str) -> Result<CudaDevice, String> {
    // SAFETY: `device` came from the driver, which writes one integer.
    let attribute = |a: Attribute| asked(|v: &mut c_int| unsafe { sys::cuDeviceGetAttribute(v, a, device) });
    let (major, minor) = compute_capability(device)?;
    let memory_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
    let memory_bits = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
    let granularity = granularity_bytes(device);
    Ok(CudaDevice {
        name: name(device)?,
        uuid: uuid(device)?,
        driver: driver.to_string(),
        compute_capability: format!("{major}.{minor}"),
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: `device` came from the driver, which writes one integer.
        memory_bytes: asked(|v: &mut usize| unsafe { sys::cuDeviceTotalMem_v2(v, device) })?,
        clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        // Two transfers a clock.
        memory_gbps: 2.0 * f64::from(memory_khz) * f64::from(memory_bits) / 8e6,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        vmm_granularity_bytes: granularity.as_ref().ok().copied(),
        why_no_vmm: granularity.err(),
    })
}

/// Where a device's memory is.
pub fn location(device: CUdevice) -> CUmemLocation {
    CUmemLocation { type_: LocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device }
}

/// What physical memory of a device is asked for by: for this process alone, and not compressed.
pub fn allocation(device: CUdevice) -> CUmemAllocationProp {
    CUmemAllocationProp {
        type_: AllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: HandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: location(device),
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: AllocationFlags { compressionType: 0, gpuDirectRDMACapable: 0, usage: 0, reserved: [0; 4] },
    }
}

/// The granularity of a device's virtual memory management, a power of two, or why it has none. The recommended one: a smaller one
/// is allowed on some devices, but costs them reach of their TLBs and us a call for each handle.
pub fn granularity_bytes(device: CUdevice) -> Result<u64, String> {
    if let Some(name) = libcuda::missing(libcuda::VIRTUAL_MEMORY) {
        return Err(format!("the NVIDIA driver's library has no {name}"));
    }
    let supported = Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
    // SAFETY: `device` came from the driver, which writes one integer.
    if asked(|v: &mut c_int| unsafe { sys::cuDeviceGetAttribute(v, supported, device) })? == 0 {
        return Err("the device does not support it".into());
    }
    let (allocation, option) = (allocation(device), Granularity::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    // SAFETY: the library has this symbol; the driver writes one integer.
    let bytes = asked(|n: &mut usize| unsafe { sys::cuMemGetAllocationGranularity(n, &allocation, option) })?;
    if bytes.is_power_of_two() { Ok(bytes as u64) } else { Err(format!("a granularity of {bytes} bytes is no power of two")) }
}

/// Major and minor number of the device's compute capability.
pub fn compute_capability(device: CUdevice) -> Result<(u32, u32), String> {
    // SAFETY: `device` came from the driver, which writes one integer.
    let attribute = |a: Attribute| asked(|v: &mut c_int| unsafe { sys::cuDeviceGetAttribute(v, a, device) });
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

fn name(device: CUdevice) -> Result<String, String> {
    let mut text = [0u8; 256];
    // SAFETY: the driver writes at most so many bytes and ends them with a 0.
    asked(|_: &mut ()| unsafe { sys::cuDeviceGetName(text.as_mut_ptr().cast::<c_char>(), text.len() as c_int, device) })?;
    let text = CStr::from_bytes_until_nul(&text).map_err(|e| e.to_string())?;
    Ok(text.to_string_lossy().into_owned())
}

/// As NVML writes it: `GPU-` and groups of hexadecimal digits.
fn uuid(device: CUdevice) -> Result<String, String> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: the driver writes 16 bytes.
    asked(|_: &mut ()| unsafe { sys::cuDeviceGetUuid(&mut uuid, device) })?;
    Ok(uuid_text(uuid.bytes.map(|b| b as u8)))
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let group = |range: std::ops::Range<usize>| bytes[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("GPU-{}-{}-{}-{}-{}", group(0..4), group(4..6), group(6..8), group(8..10), group(10..16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_nvml_writes_them() {
        let bytes: Vec<u8> = (0..16).map(|i| i * 17).collect();
        assert_eq!(uuid_text(bytes.try_into().unwrap()), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
