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
    let driver = driver_version().map_err(say)?;
    let count = result::device::get_count().map_err(say)?;
    (0..count).map(|i| result::device::get(i).and_then(|d| one(d, &driver)).map_err(say)).collect()
}

/// The newest CUDA version that the driver speaks, e.g. "12.4".
fn driver_version() -> Result<String, cudarc::driver::DriverError> {
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn one(device: sys::CUdevice, driver: &str) -> Result<CudaDevice, cudarc::driver::DriverError> {
    // SAFETY: `device` came from the driver.
    let attribute = |a: Attribute| unsafe { result::device::get_attribute(device, a) };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let memory_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
    let memory_bits = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
    Ok(CudaDevice {
        name: result::device::get_name(device)?,
        driver: driver.to_string(),
        compute_capability: format!("{major}.{minor}"),
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device)? },
        clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        // Two transfers a clock.
        memory_gbps: 2.0 * f64::from(memory_khz) * f64::from(memory_bits) / 8e6,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}
