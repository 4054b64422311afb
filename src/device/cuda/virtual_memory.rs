//! Virtual memory management: addresses, and physical memory in handles that are mapped there. Source: CUDA driver API, Virtual
//! Memory Management.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUmemAccess_flags as Access, CUmemAccessDesc};

use super::context::Context;
use crate::error::{Error, Result};
use crate::hardware::cuda;
use crate::memory::provider::{Handle, Mapping};

/// How memory is taken from the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// By cuMemAlloc.
    #[default]
    Slabs,
    /// By virtual memory management where the device has it, else in slabs.
    Vmm,
}

impl Choice {
    /// What the environment variable `HALFBYTE_CUDA_MEMORY` says: `slabs` or `vmm`; slabs when it is unset or empty. Errors when it
    /// says anything else.
    pub fn of_environment() -> Result<Choice> {
        let said = std::env::var_os("HALFBYTE_CUDA_MEMORY").unwrap_or_default();
        match said.to_string_lossy().as_ref() {
            "" | "slabs" => Ok(Choice::Slabs),
            "vmm" => Ok(Choice::Vmm),
            other => Err(Error::BadInput(format!("HALFBYTE_CUDA_MEMORY is {other:?}: slabs and vmm are allowed"))),
        }
    }
}

/// Virtual memory management of a context's device.
pub struct VirtualMemory {
    context: Arc<Context>,
    granularity_bytes: u64,
}

impl VirtualMemory {
    /// Of the context's device, or why it has none.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, String> {
        Ok(VirtualMemory { context: context.clone(), granularity_bytes: cuda::granularity_bytes(context.device)? })
    }
}

// In all of the following the library has the symbols: `granularity_bytes` looked for them.
impl Mapping for VirtualMemory {
    fn granularity_bytes(&self) -> u64 {
        self.granularity_bytes
    }

    fn reserve(&self, bytes: u64) -> Result<u64> {
        self.context.enter()?;
        let (mut address, align) = (0, self.granularity_bytes as usize);
        // SAFETY: the driver writes one address.
        let answer = unsafe { sys::cuMemAddressReserve(&mut address, bytes as usize, align, 0, 0) };
        self.context.taken("cuMemAddressReserve", answer, bytes)?;
        Ok(address)
    }

    fn unreserve(&self, address: u64, bytes: u64) {
        self.context.give_back(|| {
            // SAFETY: given by `reserve`, and nothing is mapped there.
            unsafe { sys::cuMemAddressFree(address, bytes as usize) };
        });
    }

    fn create(&self, bytes: u64) -> Result<Handle> {
        self.context.enter()?;
        let (mut handle, allocation) = (0, cuda::allocation(self.context.device));
        // SAFETY: the driver writes one handle.
        let answer = unsafe { sys::cuMemCreate(&mut handle, bytes as usize, &allocation, 0) };
        self.context.taken("cuMemCreate", answer, bytes)?;
        Ok(handle)
    }

    fn map(&self, address: u64, bytes: u64, handle: Handle) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the handle has so many bytes; the driver refuses addresses that are not reserved or are mapped.
        let answer = unsafe { sys::cuMemMap(address, bytes as usize, 0, handle, 0) };
        self.context.taken("cuMemMap", answer, bytes)
    }

    fn set_access(&self, address: u64, bytes: u64) -> Result<()> {
        self.context.enter()?;
        let flags = Access::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        let device = CUmemAccessDesc { location: cuda::location(self.context.device), flags };
        // SAFETY: one description, which the driver copies.
        let answer = unsafe { sys::cuMemSetAccess(address, bytes as usize, &device, 1) };
        self.context.taken("cuMemSetAccess", answer, bytes)
    }

    /// Waits for the stream first: cuMemUnmap is not in its order, and not all work that read a block left a mark in the pool
    /// (constants, tables, copies). cuMemFree waits in the same way.
    fn unmap(&self, address: u64, bytes: u64) -> Result<()> {
        self.context.synchronize()?;
        // SAFETY: no work uses the range: who had it let go of it before this call, and what was submitted until then is done.
        let answer = unsafe { sys::cuMemUnmap(address, bytes as usize) };
        self.context.faults.check("cuMemUnmap", answer)
    }

    fn release(&self, handle: Handle, _: u64) {
        self.context.give_back(|| {
            // SAFETY: given by `create`, and released once.
            unsafe { sys::cuMemRelease(handle) };
        });
    }
}
