//! NVIDIA's driver library: whether it is there and has what is called of it, so that no call can miss.

use std::ffi::c_void;
use std::sync::OnceLock;

use cudarc::driver::sys;

/// Every function of the library that this crate calls, by the name that it is looked up under. A call that is not in the list
/// must not be added: a binding whose symbol is missing panics.
pub const SYMBOLS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetUuid",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamDestroy_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuModuleLoadDataEx",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncSetAttribute",
    "cuFuncGetAttribute",
    "cuTensorMapEncodeTiled",
    "cuLaunchKernelEx",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
];

/// What virtual memory management calls besides; without one of them memory is taken in slabs.
pub const VIRTUAL_MEMORY: &[&str] = &[
    "cuMemGetAllocationGranularity",
    "cuMemAddressReserve",
    "cuMemAddressFree",
    "cuMemCreate",
    "cuMemRelease",
    "cuMemMap",
    "cuMemUnmap",
    "cuMemSetAccess",
];

/// Errors when the library is absent, lacks a function of [`SYMBOLS`], or cannot start. Looked up once.
pub fn usable() -> Result<(), String> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND.get_or_init(look).clone()
}

fn look() -> Result<(), String> {
    // SAFETY: looks whether the library can be loaded; nothing of it is called.
    if !unsafe { sys::is_culib_present() } {
        return Err("the NVIDIA driver's library (libcuda) is not installed".into());
    }
    if let Some(name) = missing(SYMBOLS) {
        return Err(format!(
            "the NVIDIA driver's library has no {name}: a driver for CUDA 12.0 or newer (525 or newer) is needed"
        ));
    }
    // SAFETY: the symbol is there.
    match unsafe { sys::cuInit(0) } as u32 {
        0 => Ok(()),
        code => Err(format!("the NVIDIA driver does not start: {}", describe(code))),
    }
}

/// The first of `names` that the library does not have. It has been found to be there.
pub(super) fn missing(names: &[&'static str]) -> Option<&'static str> {
    // SAFETY: the library is there, so that loading it does not panic; symbols are looked up and not called.
    let missing = |name: &&str| unsafe { sys::culib().get::<*const c_void>(name.as_bytes()).is_err() };
    names.iter().copied().find(missing)
}

/// A result code for people. Source: CUDA driver API, CUresult.
pub fn describe(code: u32) -> String {
    let words = match code {
        1 => "invalid value",
        2 => "out of memory",
        3 => "not initialised",
        4 => "the driver is shutting down",
        34 => "the library is a stub without a driver",
        46 => "the device is busy or unavailable",
        100 => "no device",
        101 => "no such device",
        200 => "invalid module image",
        209 => "no code for this GPU",
        214 => "uncorrectable ECC error",
        218 => "the PTX does not assemble",
        220 => "uncorrectable NVLink error",
        221 => "no PTX compiler",
        222 => "PTX of a newer version than the driver knows",
        304 => "the operating system refused",
        400 => "invalid handle",
        500 => "not found",
        700 => "illegal address",
        701 => "too many resources for a launch",
        702 => "the launch timed out",
        709 => "the context is destroyed",
        710 => "an assertion failed on the device",
        714 => "hardware stack error",
        715 => "illegal instruction",
        716 => "misaligned address",
        717 => "address of another space",
        718 => "invalid program counter",
        719 => "the launch failed",
        801 => "not supported",
        802 => "the system is not ready",
        803 => "driver and library are of different versions",
        804 => "the library needs a newer GPU or driver",
        900..=909 => "the stream cannot be captured",
        _ => "",
    };
    if words.is_empty() { format!("CUDA error {code}") } else { format!("{words} (CUDA error {code})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_answers_and_never_panics() {
        // Either is right; what must not happen is a panic, here or in a second look.
        assert_eq!(usable(), usable());
        assert!(usable().is_ok() || usable().unwrap_err().contains("NVIDIA driver"));
    }

    #[test]
    fn codes_are_told_in_words() {
        assert_eq!(describe(700), "illegal address (CUDA error 700)");
        assert_eq!(describe(12345), "CUDA error 12345");
    }
}
