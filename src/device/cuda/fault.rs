//! The driver's result codes as errors.

use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::CUresult;

use crate::error::{Error, Result};
use crate::hardware::libcuda::describe;

/// Turns result codes of one device into errors, and remembers the one after which the device's context is of no use.
pub struct Faults {
    device: String,
    /// The code, or 0.
    lost: AtomicU32,
}

/// Whether every later call in the context fails as well. Source: CUDA driver API, CUresult: codes after which "the process must be
/// terminated and relaunched", or whose context or device is gone.
fn is_sticky(code: u32) -> bool {
    matches!(code, 4 | 46 | 214 | 220 | 700 | 702 | 709 | 710 | 714..=719)
}

impl Faults {
    /// Of the device called so.
    pub fn new(device: String) -> Faults {
        Faults { device, lost: AtomicU32::new(0) }
    }

    /// An error of this device.
    pub fn error(&self, why: impl Into<String>) -> Error {
        Error::Device { device: self.device.clone(), why: why.into() }
    }

    /// The driver's answer to `call`.
    pub fn check(&self, call: &str, result: CUresult) -> Result<()> {
        self.code(call, result as u32)
    }

    /// The same, by its number.
    pub fn code(&self, call: &str, code: u32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        if is_sticky(code) {
            self.lost.store(code, Ordering::Relaxed);
        }
        Err(self.error(format!("{call}: {}", describe(code))))
    }

    /// The answer to a call that takes memory; `free_bytes` is asked only when memory is short.
    pub fn allocation(&self, call: &str, result: CUresult, needed_bytes: u64, free_bytes: impl FnOnce() -> u64) -> Result<()> {
        if result as u32 != 2 {
            return self.check(call, result);
        }
        let device = self.device.clone();
        Err(Error::OutOfMemory { device, needed_bytes, available_bytes: free_bytes() })
    }

    /// Errors when the device was lost.
    pub fn alive(&self) -> Result<()> {
        match self.lost.load(Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(self.error(format!("lost by an earlier error: {}", describe(code)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_errors_that_the_session_can_step_down_from() {
        let faults = Faults::new("cuda:0".into());
        assert!(faults.check("cuLaunchKernelEx", CUresult::CUDA_SUCCESS).is_ok());
        let full = faults.allocation("cuMemCreate", CUresult::CUDA_ERROR_OUT_OF_MEMORY, 100, || 7).unwrap_err();
        assert!(matches!(full, Error::OutOfMemory { needed_bytes: 100, available_bytes: 7, .. }), "{full}");
        let other = faults.allocation("cuMemCreate", CUresult::CUDA_ERROR_INVALID_VALUE, 100, || 7).unwrap_err();
        assert!(matches!(other, Error::Device { .. }), "{other}");
    }

    #[test]
    fn only_a_sticky_code_loses_the_device_and_for_good() {
        let faults = Faults::new("cuda:0".into());
        for code in [1, 2, 218, 600, 701, 801, 901] {
            assert!(faults.code("call", code).is_err() && faults.alive().is_ok(), "{code}");
        }
        assert!(faults.code("cuStreamSynchronize", 700).is_err());
        assert!(faults.code("call", 0).is_ok());
        let lost = faults.alive().unwrap_err().to_string();
        assert!(lost.contains("cuda:0") && lost.contains("illegal address"), "{lost}");
    }
}
