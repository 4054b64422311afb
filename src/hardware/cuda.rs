//! CUDA devices, through the driver alone.

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use super::probe::CudaDevice;

/// Every CUDA device, or why there is none.
pub(super) fn devices() -> Result<Vec<CudaDevice>, String> {
    // SAFETY: looks whether the library can be loaded; nothing of it is called.
    if !unsafe { sys::is_culib_present() } {
        return Err("the NVIDIA driver's library (libcuda) is not installed".into());
    }
    let say = |e: cudarc::driver::DriverError| format!("the NVIDIA driver answers {e:?}");
    result::init().map_err(say)?;
    let count = result::device::get_count().map_err(say)?;
    (0..count).map(|i| result::device::get(i).and_then(one).map_err(say)).collect()
}

fn one(device: sys::CUdevice) -> Result<CudaDevice, cudarc::driver::DriverError> {
    // SAFETY: `device` came from the driver.
    let attribute = |a: Attribute| unsafe { result::device::get_attribute(device, a) };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(CudaDevice {
        name: result::device::get_name(device)?,
        compute_capability: format!("{major}.{minor}"),
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device)? },
        clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}
