//! A device's primary context and the stream that all work goes through.

use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUresult, CUstream, CUstream_flags};

use super::fault::Faults;
use crate::error::Result;
use crate::hardware::cuda;

/// Retained while it lives.
pub struct Context {
    /// The driver's name for the device.
    pub device: CUdevice,
    raw: CUcontext,
    stream: CUstream,
    /// Major and minor number.
    pub compute_capability: (u32, u32),
    /// What the driver's answers mean.
    pub faults: Faults,
}

// SAFETY: the driver API may be called from any thread; every use makes the context current on its thread first.
unsafe impl Send for Context {}
// SAFETY: as above; calls on one stream are ordered by the driver.
unsafe impl Sync for Context {}

impl Context {
    /// Of device `ordinal`. Errors when there is no driver, or no such device.
    pub fn open(ordinal: usize) -> Result<Context> {
        let faults = Faults::new(format!("cuda:{ordinal}"));
        let device = cuda::device(ordinal).map_err(|why| faults.error(why))?;
        let compute_capability = cuda::compute_capability(device).map_err(|why| faults.error(why))?;
        let mut raw = null_mut();
        // SAFETY: the library has this symbol, as for every call below; the driver writes one pointer.
        faults.check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) })?;
        let mut context = Context { device, raw, stream: null_mut(), compute_capability, faults };
        context.stream = context.new_stream()?;
        Ok(context)
    }

    /// Makes the context current on this thread. Errors when the device was lost.
    pub fn enter(&self) -> Result<()> {
        self.faults.alive()?;
        // SAFETY: the context is retained while `self` lives.
        self.faults.check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.raw) })
    }

    /// The stream that all work goes through.
    pub fn stream(&self) -> CUstream {
        self.stream
    }

    /// A stream that does not wait for the default one.
    pub fn new_stream(&self) -> Result<CUstream> {
        self.enter()?;
        let mut stream = null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the driver writes one pointer.
        self.faults.check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut stream, flags) })?;
        Ok(stream)
    }

    /// Waits for all that was put into the stream.
    pub fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as `self`.
        self.faults.check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    /// Bytes not in use, of the whole device.
    pub fn free_bytes(&self) -> u64 {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two integers.
        match unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) } as u32 {
            0 => free as u64,
            _ => 0,
        }
    }

    /// The driver's answer to a call that takes `needed_bytes` of memory.
    pub fn taken(&self, call: &str, answer: CUresult, needed_bytes: u64) -> Result<()> {
        self.faults.allocation(call, answer, needed_bytes, || self.free_bytes())
    }

    /// Runs what gives something back; its failure has nobody to tell, and after a lost device nothing is left to give back.
    pub fn give_back(&self, call: impl FnOnce()) {
        if self.enter().is_ok() {
            call();
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !self.stream.is_null() {
            self.give_back(|| {
                // SAFETY: nothing uses the stream any more: whatever does holds the context.
                unsafe { sys::cuStreamDestroy_v2(self.stream) };
            });
        }
        // SAFETY: retained once by `open`.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
